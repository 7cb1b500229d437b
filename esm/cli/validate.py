"""``esm validate``: every mistake of a configuration, or what it would run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from esm.cli.output import WRONG_USE, Output, complain, say, say_json
from esm.config.load import Loaded, load
from esm.config.mapping import MappingConfig
from esm.config.mistakes import ConfigError, Mistake

ConfigPath = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="ESM_CONFIG", help="A YAML file, or a folder of *.yaml and *.yml files."),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Text for people, json for programs.")]


def validate(config: ConfigPath, output: OutputOption = Output.TEXT) -> None:
    """Check a configuration without touching anything: exit code 0 if it can be used, 2 if not."""
    try:
        loaded = load(config, os.environ)
    except ConfigError as error:
        _refuse(error, output)
        raise typer.Exit(WRONG_USE) from None
    if output is Output.JSON:
        mappings = [_described(loaded, mapping) for mapping in loaded.config.mappings]
        say_json({"valid": True, "mistakes": [], "notices": _plain(loaded.notices), "mappings": mappings})
        return
    say(_summary(loaded))
    for notice in loaded.notices:
        complain(f"notice: {notice}")


def _refuse(error: ConfigError, output: Output) -> None:
    if output is Output.JSON:
        say_json({"valid": False, "mistakes": _plain(error.mistakes), "notices": [], "mappings": []})
        return
    for mistake in error.mistakes:
        complain(str(mistake))
    number = len(error.mistakes)
    complain(f"{number} mistake{'' if number == 1 else 's'}; nothing was started")


def _plain(mistakes: Sequence[Mistake]) -> list[object]:
    return [msgspec.to_builtins(mistake) for mistake in mistakes]


def _described(loaded: Loaded, mapping: MappingConfig) -> dict[str, object]:
    target = loaded.config.target_of(mapping)
    return {
        "name": mapping.name,
        "uuid": mapping.uuid,
        "enabled": mapping.enabled,
        "source": {"kind": mapping.kind.value, "name": mapping.source_name, "arn": mapping.event_source_arn},
        "target": {"kind": target.kind.value, "name": target.name},
        "batch_size": mapping.batch_size,
        "window_in_seconds": mapping.window,
    }


def _summary(loaded: Loaded) -> str:
    mappings = loaded.config.mappings
    each = ", ".join(_in_words(loaded, mapping) for mapping in mappings)
    return f"{len(mappings)} mapping{'' if len(mappings) == 1 else 's'}: {each}"


def _in_words(loaded: Loaded, mapping: MappingConfig) -> str:
    target = loaded.config.target_of(mapping)
    off = "" if mapping.enabled else ", disabled"
    named = "" if target.name == mapping.name else f" {target.name.rsplit(':function:', 1)[-1]}"
    return f"{mapping.name} ({mapping.kind.value} → {target.kind.value}{named}{off})"
