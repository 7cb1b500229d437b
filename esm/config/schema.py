"""JSON Schema of the configuration, out of the models: for editors, and for guesses about misspelt keys."""

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from esm.config.base import Loc, canonical
from esm.config.models import Config

Schema = dict[str, Any]


@cache
def json_schema() -> Schema:
    """The schema of a whole file, in snake_case; what ``${…}`` brings is text, so numbers and flags allow it too."""
    schema = Config.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "esm configuration"
    return schema


def keys_at(loc: Loc) -> Sequence[str]:
    """The keys that may stand beside the one at the end of ``loc``; empty where any may."""
    root = json_schema()
    nodes: list[Schema] = [root]
    for part in loc[:-1]:
        nodes = [below for node in nodes for below in _below(node, part, root)]
    return [key for node in nodes for key in cast("dict[str, Schema]", node.get("properties", {}))]


def _below(node: Schema, part: int | str, root: Schema) -> list[Schema]:
    if isinstance(part, int):
        found = [node["items"]] if isinstance(node.get("items"), dict) else []
    else:
        properties = cast("dict[str, Schema]", node.get("properties", {}))
        found = [below for key, below in properties.items() if canonical(key) == canonical(part)]
        if not found and isinstance(node.get("additionalProperties"), dict):
            found = [node["additionalProperties"]]
    return [resolved for each in found for resolved in _resolved(each, root)]


def _resolved(node: Schema, root: Schema) -> list[Schema]:
    """``node`` behind its references and alternatives."""
    if "$ref" in node:
        return _resolved(root["$defs"][str(node["$ref"]).rsplit("/", 1)[-1]], root)
    alternatives = [*node.get("anyOf", []), *node.get("oneOf", [])]
    return [found for each in alternatives for found in _resolved(each, root)] if alternatives else [node]
