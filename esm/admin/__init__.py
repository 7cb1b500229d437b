"""What an operator, a probe or Prometheus asks a worker over HTTP.  Shows the engine, changes nothing."""
