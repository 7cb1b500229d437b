"""Variables of the environment: ``${NAME}`` in a file, and ``ESM_<SECTION>__<KEY>`` over its settings."""

import re
from collections.abc import Mapping
from typing import cast

from esm.config.base import Loc, canonical
from esm.config.mistakes import Mistake, guess

OVERLAID = ("worker", "admin", "aws", "leases")
"""Sections whose settings are also variables."""

_REFERENCE = re.compile(r"\$\$(?=\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<broken>\$\{)")


def has_reference(text: str) -> bool:
    """Whether ``expand`` has something to do."""
    return "${" in text


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """``text`` with its references replaced, and what is wrong with them.

    ``${NAME}`` must be set, ``${NAME:-default}`` takes the default where it is unset or empty, ``$${`` is a plain
    ``${``.  What is inserted is not looked at again.
    """
    problems: list[str] = []

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match["broken"]:
            problems.append(
                "${ without a name and a closing brace; expected ${NAME} or ${NAME:-default}, $${ for itself"
            )
        if not name:
            return "$" if match[0] == "$$" else ""
        if default is not None:
            return environ.get(name) or default
        if name not in environ:
            problems.append(f"the environment has no {name}; set it, or write ${{{name}:-default}}")
        return environ.get(name, "")

    return _REFERENCE.sub(value, text), problems


def overlay(data: dict[str, object], environ: Mapping[str, str]) -> tuple[dict[Loc, str], list[Mistake]]:
    """Put the settings that variables bring into ``data``; the variable of each place, and what is wrong with them."""
    origins: dict[Loc, str] = {}
    mistakes: list[Mistake] = []
    for variable in sorted(environ):
        match = re.fullmatch(r"ESM_([A-Za-z]+)__(.+)", variable)
        if not match:
            continue
        section, path = match[1].lower(), [part.lower() for part in match[2].split("__")]
        if section in OVERLAID:
            loc = _put(data, [section, *path], environ[variable])
            if loc is None:
                mistakes.append(Mistake(variable, None, "", f"{section} is no mapping of settings in the file"))
            else:
                origins[loc] = variable
        elif section in ("targets", "mappings"):
            text = f"{section} are not set by variables; write ${{NAME}} in the file"
            mistakes.append(Mistake(variable, None, "", text))
        else:
            near = guess(section, OVERLAID) or f", expected one of {', '.join(OVERLAID)}"
            mistakes.append(Mistake(variable, None, "", f"there is no section {section}{near}"))
    return origins, mistakes


def _put(data: dict[str, object], path: list[str], value: str) -> Loc | None:
    """Set ``path``, in the spelling that ``data`` has already; None where no mapping of settings stands in the way."""
    here, loc = data, list[str]()
    for part in path[:-1]:
        key = _spelt(here, part)
        loc.append(key)
        below = here.get(key)
        if below is None:
            below = here[key] = dict[str, object]()
        if not isinstance(below, dict):
            return None
        here = cast("dict[str, object]", below)
    key = _spelt(here, path[-1])
    here[key] = {} if value.strip() == "{}" else value
    return (*loc, key)


def _spelt(data: dict[str, object], name: str) -> str:
    return next((key for key in data if canonical(key) == canonical(name)), name)
