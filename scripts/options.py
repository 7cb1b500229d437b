"""Write the tables of docs/configuration.md, out of the models; a test fails while the page and the models differ."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from esm.config.schema import VARIABLE, json_schema
from esm.config.sources import SourceKind
from esm.config.support import APPLIES, NOT_YET

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
START, END = "<!-- options: made by scripts/options.py -->", "<!-- options end -->"
SECTIONS = {  # heading → model
    "worker": "WorkerConfig",
    "admin": "AdminConfig",
    "aws": "AwsConfig",
    "leases": "LeasesConfig",
    "leases.sqlite": "SqliteLeases",
    "targets.NAME": "TargetConfig",
    "targets.NAME.lambda": "LambdaTarget",
    "targets.NAME.http": "HttpTarget",
    "targets.NAME.python": "PythonTarget",
    "mappings[]": "MappingConfig",
    "mappings[].scaling_config": "ScalingConfig",
    "mappings[].destination_config.on_failure": "OnFailure",
    "mappings[].filter_criteria.filters[]": "FilterPattern",
    "mappings[].self_managed_event_source.endpoints": "KafkaEndpoints",
    "mappings[].source_access_configurations[]": "SourceAccessConfiguration",
    "mappings[].self_managed_kafka_event_source_config": "KafkaSourceConfig",
}

Schema = Mapping[str, Any]


def tables() -> str:
    """The options of every section, and what is not supported yet."""
    definitions = json_schema()["$defs"]
    parts = [_table(heading, definitions[model], definitions) for heading, model in SECTIONS.items()]
    return "\n".join([*parts, _not_yet()])


def _table(heading: str, model: Schema, definitions: Schema) -> str:
    mapping = heading == "mappings[]"
    head = "| option | values | default |" + (" applies to |" if mapping else "") + " meaning |"
    lines = [f"### `{heading}`", "", head, "| --- " * (head.count("|") - 1) + "|"]
    for key, node in model["properties"].items():
        cells = [f"`{key}`", _values(node, definitions), _default(key, node, model)]
        cells += [_sources(key)] if mapping else []
        lines.append(f"| {' | '.join([*cells, node['description'].replace('|', chr(92) + '|')])} |")
    return "\n".join([*lines, ""])


def _values(node: Schema, definitions: Schema) -> str:
    return " or ".join(dict.fromkeys(_kinds(node, definitions)))


def _kinds(node: Schema, definitions: Schema) -> Iterator[str]:
    match node:
        case {"$ref": str(reference)}:
            target = definitions[reference.rsplit("/", 1)[-1]]
            yield from ["settings"] if "properties" in target else _kinds(target, definitions)
        case {"anyOf": list(nodes)} | {"oneOf": list(nodes)}:
            for each in nodes:
                if each not in (VARIABLE, {"type": "null"}):
                    yield from _kinds(each, definitions)
        case {"enum": list(words)}:
            yield from (f"`{word}`" for word in words)
        case {"const": word}:
            yield f"`{word}`" if word != "" else '`""`'
        case {"type": "integer" | "number"}:
            yield _range(node)
        case {"type": "array"}:
            yield f"list of {_values(node['items'], definitions)}"
        case {"type": "object"}:
            yield "mapping"
        case {"type": "boolean"}:
            yield "`true` or `false`"
        case _:
            yield "text"


def _range(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if high is None:
        return f"{low:,} or more" if low else "number"
    return f"{low:,} to {high:,}"


def _default(key: str, node: Schema, model: Schema) -> str:
    if key in model.get("required", ()):
        return "required"
    value = node.get("default")
    return "" if value in (None, "", []) else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _sources(key: str) -> str:
    kinds = APPLIES.get(key)
    return "all" if kinds is None else ", ".join(kind.label for kind in SourceKind if kind in kinds)


def _not_yet() -> str:
    rows = [f"* {_spelt(row.model, row.path)}: {row.what}" for row in NOT_YET]
    return "\n".join(["### Not supported yet", "", *rows, ""])


def _spelt(model: str, path: tuple[str, ...]) -> str:
    text = ".".join(["mappings[]" if model == "mapping" else model, *path])
    return f"`{text.replace('.*', '[]')}`"


def written(page: str) -> str:
    """``page`` with its tables as they should be."""
    return re.sub(f"{re.escape(START)}.*{re.escape(END)}", lambda _: f"{START}\n\n{tables()}\n{END}", page, flags=re.S)


def main() -> int:
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{PAGE.name}: {len(SECTIONS)} tables")
    return 0


if __name__ == "__main__":
    sys.exit(main())
