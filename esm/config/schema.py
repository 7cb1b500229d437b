"""JSON Schema of the configuration, out of the models: for editors, and for guesses about misspelt keys."""

import ast
import inspect
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, cast

from esm.config.base import ConfigModel, Loc, canonical
from esm.config.models import Config

Schema = dict[str, Any]

VARIABLE = {"type": "string", "pattern": r"\$\{"}
"""What may stand for a number, a flag or a word of a closed set: a variable brings it."""


@cache
def json_schema() -> Schema:
    """The schema of a whole file, in snake_case; what ``${…}`` brings is text, so numbers and flags allow it too."""
    schema = Config.model_json_schema(mode="validation")
    documented = _docstrings()
    definitions = cast("dict[str, Schema]", schema["$defs"])
    for name, node in (*definitions.items(), ("Config", schema)):
        for key, below in cast("dict[str, Schema]", node.get("properties", {})).items():
            _describe(below, documented.get((name, canonical(key))))
    schema["$defs"] = {name: _with_variables(node) for name, node in definitions.items()}
    schema["properties"] = {key: _with_variables(node) for key, node in schema["properties"].items()}
    schema["title"] = "esm configuration"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _describe(node: Schema, text: str | None) -> None:
    node.pop("title", None)  # pydantic's: the key once more, with capitals
    if text:
        node["description"] = text


def _docstrings() -> dict[tuple[str, str], str]:
    """Model and field → the docstring below the field.  Pydantic would read them at every start, with a tokenizer."""
    classes = list(_models(ConfigModel))
    trees = [ast.parse(inspect.getsource(sys.modules[name])) for name in sorted({each.__module__ for each in classes})]
    found: dict[tuple[str, str], str] = {}
    for node in (each for tree in trees for each in tree.body if isinstance(each, ast.ClassDef)):
        for declared, below in zip(node.body, node.body[1:], strict=False):
            match declared, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[node.name, _KEYS.get(name, name)] = inspect.cleandoc(text)
                case _:
                    pass
    return found


_KEYS = {"aws_lambda": "lambda"}  # a field whose key is no name in Python


def _models(model: type[ConfigModel]) -> Iterator[type[ConfigModel]]:
    for below in model.__subclasses__():
        yield below
        yield from _models(below)


_KEYWORDS = {"ge": "minimum", "le": "maximum"}
"""Pydantic leaves its own words where a validator of ours comes before the limits."""


def _with_variables(node: Schema) -> Schema:
    """``node`` with every number, flag and closed set in it open to ``${NAME}``; free text takes it already."""
    node = {_KEYWORDS.get(key, key): value for key, value in node.items()}
    if "enum" in node or "const" in node or node.get("type") in ("integer", "number", "boolean"):
        told: Schema = {key: node.pop(key) for key in ("description", "default") if key in node}
        return {"anyOf": [node, VARIABLE], **told}
    for key in ("anyOf", "oneOf"):
        if key in node:
            node[key] = _alternatives(node[key])
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _with_variables(node[key])
    if "properties" in node:
        properties = cast("dict[str, Schema]", node["properties"])
        node["properties"] = {name: _with_variables(below) for name, below in properties.items()}
    return node


def _alternatives(nodes: list[Schema]) -> list[Schema]:
    """Each of ``nodes`` opened, but ``${NAME}`` listed once, and null and free text not opened at all."""
    opened: list[Schema] = []
    for node in nodes:
        for each in _flat(_with_variables(node)):
            if each not in opened:
                opened.append(each)
    return sorted(opened, key=lambda each: each == VARIABLE)


def _flat(node: Schema) -> list[Schema]:
    return node["anyOf"] if set(node) == {"anyOf"} else [node]


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
