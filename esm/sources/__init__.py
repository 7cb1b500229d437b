"""Where records come from: one technology each, behind ``ports.Source`` or ``ports.ShardSource``."""
