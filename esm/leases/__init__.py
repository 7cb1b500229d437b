"""Who reads a lane and how far it is settled: one store each, behind ``ports.LeaseStore``."""
