"""A file or a folder of files → ``Config``, or every mistake in them at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

from msgspec import Struct
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from esm.config.base import Loc, canonical, elements, entries
from esm.config.document import MAXIMUM_BYTES, Document, read_document
from esm.config.mistakes import (
    ConfigError,
    Mistake,
    guess,
    in_order,
    is_secret,
    near_word,
    sentence,
    shown,
    spell,
)
from esm.config.models import Config
from esm.config.notices import notices
from esm.config.variables import overlay

MERGED = ("targets",)
"""Sections that several files of a folder may add to, each with names of its own."""


class Loaded(Struct, frozen=True):
    """A usable configuration and what is worth knowing about it."""

    config: Config
    notices: tuple[Mistake, ...]


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration of a file, or of all ``*.yaml`` and ``*.yml`` of a folder; ``environ`` is ``os.environ``.

    Raises ConfigError with every mistake there is.
    """
    return load(path, environ).config


def load(path: Path, environ: Mapping[str, str]) -> Loaded:
    """``load_config``, with notices: what has no effect, and what may surprise."""
    whole = _Whole(str(path))
    for file in _files(path):
        whole.add(_document(file, environ))
    variables, mistakes = overlay(whole.data, environ)
    whole.variables = variables
    whole.mistakes += mistakes
    config = None
    try:
        config = Config.model_validate(whole.data)
    except ValidationError as error:
        whole.mistakes += _translated(error, whole)
    if config is None or whole.mistakes:
        raise ConfigError(in_order(whole.mistakes))
    return Loaded(config, tuple(in_order([whole.mistake(loc, text) for loc, text in notices(config)])))


def _files(path: Path) -> list[Path]:
    """The file, or the files of a folder by name.  Raises ConfigError where there are none."""
    try:
        if path.is_file():
            return [path]
        if path.is_dir():
            files = sorted(each for each in path.iterdir() if each.suffix in (".yaml", ".yml") and each.is_file())
            if files := [each for each in files if not each.name.startswith(".")]:
                return files
            text = "is a folder without *.yaml or *.yml files"
        else:
            text = "is neither a file nor a folder" if path.exists() else "no such file or folder"
    except (OSError, ValueError) as error:  # no permission, a name too long, a NUL in it
        text = f"cannot be looked at: {_reason(error)}"
    raise ConfigError([Mistake(str(path), None, "", text)])


def _document(file: Path, environ: Mapping[str, str]) -> Document:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        mistake = Mistake(str(file), None, "", f"cannot be read: {_reason(error)}")
        return Document(str(file), mistakes=[mistake])
    return read_document(str(file), content, environ)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _Part(Struct, frozen=True):
    """A file's share of the whole: its mappings stand from ``first`` on."""

    document: Document
    first: int
    count: int


class _Whole(Struct):
    """All files together, and where each value came from."""

    file: str
    data: dict[str, object] = {}
    parts: list[_Part] = []
    mistakes: list[Mistake] = []
    variables: dict[Loc, str] = {}
    readable: bool = True
    """Whether each file gave something: what an unreadable one lacks was not forgotten."""
    owners: dict[str, tuple[str, Document]] = {}
    """Section → how it is spelt where it was first given, and there."""

    def add(self, document: Document) -> None:
        """Put the sections of a file beside those of the files before it."""
        self.mistakes += document.mistakes
        self.readable = self.readable and bool(document.data)
        first, count = 0, 0
        for key, value in document.data.items():
            if value is None:
                continue
            name = canonical(key)
            spelt, owner = self.owners.setdefault(name, (key, document))
            if owner is document:
                self.data[key] = value
                count = len(elements(value)) if name == "mappings" else count
            elif name == "mappings" and isinstance(value, list) and isinstance(self.data[spelt], list):
                before, more = elements(self.data[spelt]), elements(cast("object", value))
                first, count = len(before), len(more)
                self.data[spelt] = [*before, *more]
            elif name in MERGED and isinstance(value, dict) and isinstance(self.data[spelt], dict):
                self._merge(spelt, key, document)
            else:
                self._twice(document, (key,), owner)
        self.parts.append(_Part(document, first, count))

    def _merge(self, spelt: str, key: str, document: Document) -> None:
        merged = cast("dict[str, object]", self.data[spelt])
        for name, value in entries(document.data[key]):
            if name in merged:
                self._twice(document, (key, name), self._with((spelt, name)))
            else:
                merged[name] = value

    def _with(self, loc: Loc) -> Document:
        return next(part.document for part in self.parts if loc in part.document.lines)

    def _twice(self, document: Document, loc: Loc, owner: Document) -> None:
        text = f"is given twice, also in {owner.file}"
        self.mistakes.append(Mistake(document.file, document.lines.get(loc), spell(loc), text))

    def value(self, loc: Loc) -> object:
        """What stands at ``loc``; None where nothing does."""
        here: object = self.data
        for part in loc:
            if isinstance(part, int):
                items = elements(here)
                here = items[part] if part < len(items) else None
            else:
                here = dict(entries(here)).get(part)
        return here

    def mistake(self, loc: Loc, text: str, *, shows: bool = False) -> Mistake:
        """``text`` about the value at ``loc``, with the value before it if it may be shown."""
        document, inner = self.home(loc)
        variable = _nearest(self.variables, loc)
        if shows and is_secret(loc):
            text = f"the value (not shown): {text}"
        elif shows and not variable and inner in document.templates:
            # What a variable holds may be a secret wherever it stands.
            text = f"the value of {shown(document.templates[inner])}: {text}"
        elif shows:
            text = f"{shown(self.value(loc))}, {text}"
        if variable:
            return Mistake(variable, None, spell(inner), text)
        line = _nearest(document.lines, inner)
        file = document.file if line is not None or len(self.parts) == 1 else self.file
        return Mistake(file, line, spell(inner), text)

    def spot(self, loc: Loc, near: Loc) -> str:
        """How a sentence about ``near`` names the place ``loc``."""
        (document, inner), (here, _) = self.home(loc), self.home(near)
        return spell(inner) if document is here else f"{spell(inner)} in {document.file}"

    def unsaid(self, loc: Loc) -> bool:
        """Whether the environment lacks the value at ``loc``, which has been said."""
        document, inner = self.home(loc)
        return not _nearest(self.variables, loc) and inner in document.broken

    def home(self, loc: Loc) -> tuple[Document, Loc]:
        """The file that ``loc`` is in, and where it is there."""
        if len(loc) >= 2 and isinstance(loc[0], str) and isinstance(loc[1], int) and canonical(loc[0]) == "mappings":
            for part in self.parts:
                if part.first <= loc[1] < part.first + part.count:
                    key = next(key for key in part.document.data if canonical(key) == "mappings")
                    return part.document, (key, loc[1] - part.first, *loc[2:])
        for end in range(len(loc), 0, -1):
            for part in self.parts:
                if loc[:end] in part.document.lines:
                    return part.document, loc
        return self.parts[0].document, loc


T = TypeVar("T")


def _nearest(places: Mapping[Loc, T], loc: Loc) -> T | None:
    """What ``places`` has for ``loc``, or for the nearest thing around it."""
    return next((places[loc[:end]] for end in range(len(loc), 0, -1) if loc[:end] in places), None)


def _translated(error: ValidationError, whole: _Whole) -> list[Mistake]:
    """The errors of pydantic as sentences about the files."""
    details = [detail for detail in error.errors(include_url=False) if detail["type"] != "default_factory_not_called"]
    places = [_place(detail) for detail in details]
    mistakes: list[Mistake] = []
    for detail, loc in zip(details, places, strict=True):
        inside = any(other[: len(loc)] == loc and len(other) > len(loc) for other in places)
        if detail["type"] == "too_short" and inside:
            continue  # pydantic counts the items that were fine
        if whole.unsaid(loc) or (not whole.readable and _may_stand_elsewhere(loc)):
            continue
        mistakes.append(_mistake(detail, loc, whole))
    return mistakes


def _may_stand_elsewhere(loc: Loc) -> bool:
    """Whether what is missed at ``loc`` may be in a file that could not be read: mappings, a target's name."""
    names = [canonical(part) for part in loc if isinstance(part, str)]
    return names in (["mappings"], ["mappings", "target"])


def _place(detail: ErrorDetails) -> Loc:
    """Without pydantic's own steps: the tags of a union, the marker of a dictionary's key."""
    return tuple(part for part in detail["loc"] if not (isinstance(part, str) and part in _STEPS))


_STEPS = ("<name>", "<inline>", "[key]")


def _mistake(detail: ErrorDetails, loc: Loc, whole: _Whole) -> Mistake:
    context = detail.get("ctx", {})
    text, shows = sentence(detail["type"], context, detail["msg"])
    if other := context.get("other"):
        text = text.replace("{other}", whole.spot(other, loc))
    if detail["type"] == "extra_forbidden":
        text = _unknown(loc, whole)
    elif detail["type"] == "string_type" and isinstance(detail["input"], bool | int | float):
        text += ": put it in quotes"
    elif detail["type"] in ("enum", "literal_error") and not is_secret(loc):
        text += near_word(detail["input"], context)
    return whole.mistake(loc, text, shows=shows)


def _unknown(loc: Loc, whole: _Whole) -> str:
    key = str(loc[-1])
    for other, _ in entries(whole.value(loc[:-1])):
        if other != key and canonical(other) == canonical(key):
            return f"is given twice, also as {other}"
    return f"unknown{guess(key, known_keys(loc))}"


def known_keys(loc: Loc) -> Sequence[str]:
    """The keys that may stand beside ``loc``, as far as a guess needs them."""
    from esm.config.schema import keys_at  # only after a mistake: building the schema takes 20 ms

    return keys_at(loc)
