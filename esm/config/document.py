"""One YAML file → plain data, and the line of everything in it.

PyYAML's C parser brings the events; scalars are read as YAML 1.2 does, since 1.1 turns ``012345670123`` into
1402433619, ``22:22`` into 1342 and ``no`` into False.
"""

import re
from collections.abc import Iterator, Mapping
from typing import cast

import yaml
from msgspec import Struct

from esm.config.base import Loc
from esm.config.mistakes import Mistake, spell
from esm.config.variables import expand, has_reference

MAXIMUM_BYTES = 4 * 1024 * 1024
MAXIMUM_DEPTH = 50
MAXIMUM_VALUES = 200_000
"""Values of one file once its aliases are written out; thousands of mappings stay below."""


class Scalar(Struct):
    """A leaf as it was written."""

    text: str
    plain: bool
    line: int


class Sequence(Struct):
    """A list; ``closed`` once all of it was read, so that an alias cannot stand inside what it names."""

    line: int
    items: "list[Node]" = []
    closed: bool = False


class Table(Struct):
    """A mapping: its pairs in order, duplicates included."""

    line: int
    pairs: "list[tuple[Scalar, Node]]" = []
    key: Scalar | None = None
    closed: bool = False


Node = Scalar | Sequence | Table


class Document(Struct):
    """What a file says."""

    file: str
    data: dict[str, object] = {}
    lines: dict[Loc, int] = {}
    """Line of each key and list item."""
    templates: dict[Loc, str] = {}
    """What is written where a value came from the environment."""
    broken: set[Loc] = set()
    """Where the environment lacks a value: nothing more is said about these places."""
    mistakes: list[Mistake] = []


class _Unreadable(Exception):
    """The file cannot be read on; the text says why."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def read_document(file: str, content: bytes, environ: Mapping[str, str]) -> Document:
    """Plain data of ``content``; whatever is wrong with it is in ``mistakes``, nothing is raised."""
    document = Document(file)
    try:
        root = _compose(_decoded(content))
        if root is None:
            raise _Unreadable("is empty, expected settings and mappings")
        if not isinstance(root, Table):
            kind = "a list" if isinstance(root, Sequence) else "plain text"
            raise _Unreadable(f"{kind}, expected a mapping with sections like mappings:", root.line)
        document.data = _Reader(document, environ).table(root, ())
    except _Unreadable as error:
        document.mistakes.append(Mistake(file, error.line, "", str(error)))
    return document


def _decoded(content: bytes) -> str:
    if len(content) > MAXIMUM_BYTES:
        raise _Unreadable(f"has {len(content):,} bytes, at most {MAXIMUM_BYTES:,}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unreadable("is not text in UTF-8", content.count(b"\n", 0, error.start) + 1) from None


def _compose(text: str) -> Node | None:
    """The nodes of the one document in ``text``; None where there is nothing."""
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Unreadable("holds control characters; is it a text file?", line) from None
    except yaml.MarkedYAMLError as error:
        raise _Unreadable(*_syntax(error, text)) from None
    return builder.root


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is in all wheels; 30 times as fast


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[str, int | None]:
    line = error.problem_mark.line + 1 if error.problem_mark else None
    written = text.split("\n")[line - 1] if line and line <= text.count("\n") + 1 else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return "is indented with a tab, YAML takes spaces", line
    if "maximum nesting depth" in str(error.problem):
        return f"is nested more than {MAXIMUM_DEPTH} levels deep", line
    context = f"{error.context}: " if error.context else ""
    hint = "; inside {} and [], ${NAME} stands in quotes" if "flow" in context and "${" in written else ""
    return f"is not YAML: {context}{error.problem}{hint}", line


class _Builder:
    """Turns events into nodes without recursion, so that no file is too deep for the stack."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[Sequence | Table] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _Unreadable("a second document begins here, expected one a file", line)
            case yaml.ScalarEvent():
                self._scalar(event, line)
            case yaml.SequenceStartEvent():
                self._start(Sequence(line), event)
            case yaml.MappingStartEvent():
                self._start(Table(line), event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._open.pop().closed = True
            case yaml.AliasEvent():
                self._place(self._meant(str(event.anchor), line), line)
            case _:
                pass

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise _Unreadable(f"the tag {event.tag} is not understood, expected none", line)
        if event.value == "" and event.implicit[0] and self._open == [] and self.root is None:
            return  # an empty document
        self._place(self._anchored(Scalar(event.value, event.implicit[0] and event.tag is None, line), event), line)

    def _start(self, node: Sequence | Table, event: yaml.CollectionStartEvent) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            raise _Unreadable(f"the tag {event.tag} is not understood, expected none", node.line)
        if len(self._open) >= MAXIMUM_DEPTH:
            raise _Unreadable(f"is nested more than {MAXIMUM_DEPTH} levels deep", node.line)
        self._place(self._anchored(node, event), node.line)
        self._open.append(node)

    def _anchored(self, node: Node, event: yaml.NodeEvent) -> Node:
        if event.anchor:
            self._anchors[str(event.anchor)] = node
        return node

    def _meant(self, anchor: str, line: int) -> Node:
        node = self._anchors.get(anchor)
        if node is None:
            raise _Unreadable(f"*{anchor} names nothing; expected &{anchor} further up", line)
        if not isinstance(node, Scalar) and not node.closed:
            raise _Unreadable(f"*{anchor} stands inside what it names", line)
        return node

    def _place(self, node: Node, line: int) -> None:
        parent = self._open[-1] if self._open else None
        match parent:
            case None:
                self.root = node
            case Sequence():
                parent.items.append(node)
            case Table(key=None):
                if not isinstance(node, Scalar):
                    raise _Unreadable("a list or mapping stands where a key was expected", line)
                parent.key = Scalar(node.text, node.plain, line)
            case Table():
                parent.pairs.append((cast("Scalar", parent.key), node))
                parent.key = None


class _Reader:
    """Turns nodes into plain data, expands variables and merges, and notes lines."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._values = 0

    def table(self, node: Table, loc: Loc) -> dict[str, object]:
        data: dict[str, object] = {}
        for key, value, repeats in self._flattened(node):
            if repeats is not None:
                self._mistake(key.line, (*loc, key.text), f"is given twice, first on line {repeats}")
                continue
            below = (*loc, key.text)
            self._document.lines[below] = key.line
            data[key.text] = self._value(value, below)
        return data

    def _value(self, node: Node, loc: Loc) -> object:
        self._spend(node.line, len(loc))
        match node:
            case Scalar():
                return self._leaf(node, loc)
            case Table():
                return self.table(node, loc)
            case Sequence():
                for index, item in enumerate(node.items):
                    self._document.lines[(*loc, index)] = item.line
                return [self._value(item, (*loc, index)) for index, item in enumerate(node.items)]

    def _leaf(self, node: Scalar, loc: Loc) -> object:
        if not has_reference(node.text):
            return resolve(node.text) if node.plain else node.text
        text, problems = expand(node.text, self._environ)
        for problem in problems:
            self._mistake(node.line, loc, problem)
        self._document.templates[loc] = node.text
        if problems:  # the text as written keeps its place, so that what hangs on it is not called missing
            self._document.broken.add(loc)
            return node.text
        # What a variable holds is text, and number and boolean fields read text: a host named 0123 or no stays itself.
        return None if node.plain and text in _NULLS else text

    def _flattened(self, node: Table, depth: int = 0) -> Iterator[tuple[Scalar, Node, int | None]]:
        """Pairs of a mapping with ``<<`` merged in: own keys win, then the first mapping that has one.

        The third is the line of the first where a key repeats.
        """
        self._spend(node.line, depth)
        own: dict[str, int] = {}
        for key, value in node.pairs:
            if not _is_merge(key):
                yield key, value, own.get(key.text)
                own.setdefault(key.text, key.line)
        for key, value in node.pairs:
            for table in _merged(value, key.line) if _is_merge(key) else ():
                for inner, below, repeats in self._flattened(table, depth + 1):
                    self._spend(key.line, depth)
                    if inner.text not in own and repeats is None:
                        own[inner.text] = inner.line
                        yield inner, below, None

    def _spend(self, line: int, depth: int) -> None:
        """Count one step: aliases make a short file say a lot."""
        self._values += 1
        if self._values > MAXIMUM_VALUES:
            raise _Unreadable(f"holds more than {MAXIMUM_VALUES:,} values once its aliases are written out", line)
        if depth > MAXIMUM_DEPTH:
            raise _Unreadable(f"is nested more than {MAXIMUM_DEPTH} levels deep once its aliases are written out", line)

    def _mistake(self, line: int, loc: Loc, text: str) -> None:
        self._document.mistakes.append(Mistake(self._document.file, line, spell(loc), text))


def _is_merge(key: Scalar) -> bool:
    return key.plain and key.text == "<<"


def _merged(value: Node, line: int) -> list[Table]:
    tables = value.items if isinstance(value, Sequence) else [value]
    if not all(isinstance(table, Table) for table in tables):
        raise _Unreadable("<< takes a mapping or a list of mappings, written as *name", line)
    return cast("list[Table]", tables)


_NULLS = ("", "~", "null", "Null", "NULL")
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def resolve(text: str) -> object:
    """What a plain scalar means in YAML 1.2, but that integers with a leading zero, as account ids have, stay text."""
    if text in _NULLS:
        return None
    if text in _TRUTHS:
        return _TRUTHS[text]
    if len(text) <= 40:
        if re.fullmatch(r"[-+]?(?:0|[1-9][0-9]*)", text):
            return int(text)
        if re.fullmatch(r"0o[0-7]+|0x[0-9a-fA-F]+", text):
            return int(text, 0)
        if re.fullmatch(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", text):
            return float(text)
    return text
