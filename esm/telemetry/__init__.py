"""Each number and each log event, named once."""
