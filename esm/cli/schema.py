"""``esm schema``: what an editor needs to help with the configuration."""

from esm.cli.output import say_json
from esm.config.schema import json_schema


def schema() -> None:
    """Print the JSON Schema of the configuration."""
    say_json(json_schema())
