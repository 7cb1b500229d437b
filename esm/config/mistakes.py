"""Mistakes of a configuration: where they stand, and the sentence for an operator."""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from esm.config.base import Loc, canonical
from esm.domain.errors import EsmError


class Mistake(Struct, frozen=True):
    """One thing that is wrong, or (as a notice) worth knowing."""

    file: str
    """The file as it was named, or the variable that brought the value."""
    line: int | None
    """From 1; None where there is no line."""
    path: str
    """``mappings[0].batch_size``, as it was spelt; empty for the whole file."""
    text: str
    """What was found and what was expected."""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.path, self.text) if part)


class ConfigError(EsmError):
    """The configuration cannot be used; each mistake says where it is and what was expected."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def spell(loc: Loc) -> str:
    """``("mappings", 0, "batch_size")`` → ``mappings[0].batch_size``; keys that are no words are quoted."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if re.fullmatch(r"[\w-]{1,100}", part) else _quoted(part)
            text += f".{word}" if text else word
    return text


_SECRET = re.compile(r"password|passwd|secret|token|credential|authorization|api_?key|private", re.IGNORECASE)


def is_secret(loc: Loc) -> bool:
    """Whether a value at ``loc`` must not be repeated: password-like keys, and all headers."""
    return any(isinstance(part, str) and (_SECRET.search(part) or canonical(part) == "headers") for part in loc)


def shown(value: object) -> str:
    """``value`` in a message: short, on one line, without the user and password of a URL."""
    match value:
        case str():
            return _quoted(re.sub(r"//[^/@\s]*@", "//***@", value))
        case None:
            return "nothing"
        case True | False:
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list() | tuple():
            return "a list"
        case _:
            return "a mapping"


def _quoted(text: str) -> str:
    short = text if len(text) <= 80 else text[:77] + "..."
    plain = re.fullmatch(r"[A-Za-z_$][\w.:/@*${}+-]*", short)
    return short if plain else "'" + short.encode("unicode_escape").decode().replace("'", "\\'") + "'"


def guess(word: str, words: Sequence[str]) -> str:
    """``, did you mean batch_size?`` where one of ``words`` is close; else empty."""
    near = difflib.get_close_matches(canonical(word), words, n=1, cutoff=0.7)
    return f", did you mean {near[0]}?" if near else ""


Context = dict[str, Any]
_SENTENCES: dict[str, Callable[[Context], str]] = {  # pydantic's error type → what was expected
    "esm": lambda context: str(context["text"]),
    "greater_than_equal": lambda context: f"at least {context['ge']}",
    "less_than_equal": lambda context: f"at most {context['le']}",
    "string_type": lambda context: "expected text",
    "string_too_short": lambda context: f"expected at least {_count(context['min_length'], 'character')}",
    "string_too_long": lambda context: f"expected at most {_count(context['max_length'], 'character')}",
    "enum": lambda context: f"expected {_words(context)}",
    "literal_error": lambda context: f"expected {_words(context)}",
    "model_type": lambda context: "expected a mapping of settings",
    "model_attributes_type": lambda context: "expected a mapping of settings",
    "dict_type": lambda context: "expected a mapping",
    "tuple_type": lambda context: "expected a list",
    "too_short": lambda context: f"expected at least {_count(context['min_length'], 'item')}",
    "too_long": lambda context: f"{_count(context['actual_length'], 'item')}, at most {context['max_length']}",
    "missing": lambda context: "is missing",
    "extra_forbidden": lambda context: "unknown",
}
_WITHOUT_VALUE = ("missing", "extra_forbidden", "too_long", "too_short")


def sentence(kind: str, context: Context, message: str) -> tuple[str, bool]:
    """What to say for an error of pydantic, and whether the value that was found stands before it."""
    text = _SENTENCES[kind](context) if kind in _SENTENCES else message
    shows = bool(context.get("shows")) if kind == "esm" else kind not in _WITHOUT_VALUE
    return text, shows


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _words(context: Context) -> str:
    words = re.findall(r"'([^']*)'", str(context["expected"]))
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def near_word(value: object, context: Context) -> str:
    """A guess for a misspelt word of a closed set; empty elsewhere."""
    words = re.findall(r"'([^']*)'", str(context.get("expected", "")))
    if not isinstance(value, str):
        return ""
    if len(words) == 1:
        return ""  # the sentence names it already
    near = difflib.get_close_matches(value.upper(), [word.upper() for word in words], n=1, cutoff=0.7)
    return next((f", did you mean {word}?" for word in words if [word.upper()] == near), "")


def in_order(mistakes: Iterator[Mistake] | Sequence[Mistake]) -> list[Mistake]:
    """By file and line, each once."""
    return sorted(set(mistakes), key=lambda each: (each.file, each.line or 0, each.path, each.text))
