"""What every model of the configuration shares: spellings, nulls, and all mistakes at once."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Self, cast
from urllib.parse import urlsplit

from msgspec import Struct
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

Loc = tuple[int | str, ...]
"""Where a value stands, as it was spelt: ``("mappings", 0, "BatchSize")``."""

SYNONYMS = {  # Terraform's word → the API's
    "destination_arn": "destination",
    "filter": "filters",
    "source_access_configuration": "source_access_configurations",
    "access_config": "access_configs",
    "schema_validation_config": "schema_validation_configs",
}
PASCAL = {  # where the API does not follow its own rule
    "uuid": "UUID",
    "uri": "URI",
    "kms_key_arn": "KMSKeyArn",
    "document_db_event_source_config": "DocumentDBEventSourceConfig",
    "schema_registry_uri": "SchemaRegistryURI",
}
_UNPASCAL = {pascal: snake for snake, pascal in PASCAL.items()}


class Breach(Struct, frozen=True):
    """A rule that is broken: where, and a sentence."""

    loc: Loc
    text: str
    shows: bool = False
    """Whether the value that was found stands before the sentence."""
    covers: bool = False
    """Whether nothing else needs to be said about what stands inside."""
    other: Loc = ()
    """A second place, which stands in the sentence as ``{other}``."""


def pascal(name: str) -> str:
    """CloudFormation's spelling of a key: ``batch_size`` → ``BatchSize``."""
    return PASCAL.get(name) or "".join(part[:1].upper() + part[1:] for part in name.split("_"))


@cache
def canonical(key: str) -> str:
    """The one name of a key: ``BatchSize`` → ``batch_size``, ``destination_arn`` → ``destination``."""
    snake = _UNPASCAL.get(key) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()
    return SYNONYMS.get(snake, snake)


def spellings(name: str) -> AliasChoices:
    """Every key that may stand for the field ``name``; the first one is what the JSON Schema shows."""
    names = [name, *(other for other, meant in SYNONYMS.items() if meant == name)]
    return AliasChoices(*names, *(pascal(each) for each in names))


def entries(data: object) -> list[tuple[str, object]]:
    """Keys and values of a plain mapping, nulls left out; nothing for anything else."""
    if not isinstance(data, dict):
        return []
    return [(str(key), value) for key, value in cast("dict[object, object]", data).items() if value is not None]


def elements(data: object) -> list[object]:
    """The items of a plain list; nothing for anything else."""
    return list(cast("list[object]", data)) if isinstance(data, list | tuple) else []


def find(data: object, *path: str) -> Iterator[tuple[Loc, object]]:
    """Each value of plain ``data`` at a canonical ``path``, with its place as spelt; ``*`` is every element of a list.

    Nulls count as absent.  Works on data that no model has accepted yet, so that one mistake does not hide others.
    """
    if not path:
        yield (), data
        return
    steps: list[tuple[int | str, object]]
    if path[0] == "*":
        steps = [*enumerate(elements(data))]
    else:
        steps = [(key, value) for key, value in entries(data) if canonical(key) == path[0]]
    for step, value in steps:
        for loc, found in find(value, *path[1:]):
            yield (step, *loc), found


def given(data: object, *path: str) -> object:
    """The first value at ``path``, or None."""
    return next((value for _, value in find(data, *path)), None)


def place(data: object, *path: str) -> Loc:
    """Where ``path`` stands in ``data`` as it was spelt there; ``path`` itself where it is absent."""
    return next((loc for loc, _ in find(data, *path)), path)


def whole(value: object) -> int | None:
    """``value`` as a whole number, if it is one or spells one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,20}", value.strip()):
        return int(value)
    return None


def truth(value: object) -> bool | None:
    """``value`` as true or false, if it is one or spells one."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def mistaken(text: str) -> PydanticCustomError:
    """A validator's refusal: ``text`` follows the value that was found (``20000, at most 10000``)."""
    return PydanticCustomError("esm", "{text}", {"text": text, "shows": True})


def hidden(text: str) -> PydanticCustomError:
    """A validator's refusal of a value that may hold a secret: ``text`` stands alone."""
    return PydanticCustomError("esm", "{text}", {"text": text, "shows": False})


def _to_whole(value: object) -> int:
    if (number := whole(value)) is None:
        raise mistaken("expected a whole number")
    return number


def _to_flag(value: object) -> bool:
    if (flag := truth(value)) is None:
        raise mistaken("expected true or false")
    return flag


Whole = Annotated[int, BeforeValidator(_to_whole)]
"""A whole number; text that spells one counts, since variables of the environment are text."""
Flag = Annotated[bool, BeforeValidator(_to_flag)]
"""True or false, or text that spells it; YAML 1.2 knows no ``yes`` and ``on``."""


def _named(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise mistaken("expected 1 to 128 letters, digits, dots, dashes or underscores, a letter or digit first")
    return name


Name = Annotated[str, AfterValidator(_named)]
"""What a mapping, a target or a fleet is called: it becomes part of metrics, logs and lease keys."""


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket without its partner
        fine = False
    if not fine or re.search(r"\s", text):
        raise mistaken("expected http://host:port/path or https://…")
    return text


Url = Annotated[str, AfterValidator(_url)]


def _endpoint(text: str) -> str:
    if "@" in urlsplit(_url(text)).netloc:
        raise hidden("has a login, which AWS's clients do not send; expected http://host:port")
    return text


Endpoint = Annotated[str, AfterValidator(_endpoint)]
"""Where a service of AWS is."""


def _region(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", text):
        raise mistaken("expected a region, like eu-west-1")
    return text


Region = Annotated[str, AfterValidator(_region)]


class ConfigModel(BaseModel):
    """Frozen, without unknown keys; takes snake_case, PascalCase and Terraform's words."""

    model_config = (
        ConfigDict(  # docstrings of fields: `schema` reads them, since here they would cost 30 ms at each start
            frozen=True,
            extra="forbid",
            alias_generator=AliasGenerator(validation_alias=spellings),
        )
    )

    @classmethod
    def breaches(cls, data: dict[str, object]) -> Iterator[Breach]:
        """Rules between several keys; ``data`` is as written, not yet checked.  A place is relative to this model."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _every_mistake(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Collect what the fields and what the rules have to say, so that an operator sees all of it at once."""
        if not isinstance(data, dict):
            return handler(data)
        written = dict(entries(cast("object", data)))
        found: dict[Loc, Breach] = {}
        for breach in cls.breaches(written):
            found.setdefault(breach.loc, breach)  # one sentence a place: the first is the more general
        if not found:
            return handler(written)
        details = [_detail(breach) for breach in found.values()]
        try:
            handler(written)
        except ValidationError as error:
            details += _others(error, found)
        raise ValidationError.from_exception_data(cls.__name__, details)


def _detail(breach: Breach) -> InitErrorDetails:
    context = {"text": breach.text, "shows": breach.shows, "other": breach.other}
    error = PydanticCustomError("esm", "{text}", context)
    return InitErrorDetails(type=error, loc=breach.loc, input=None)


def _others(error: ValidationError, told: dict[Loc, Breach]) -> Iterator[InitErrorDetails]:
    """What ``error`` says about places that no rule has spoken of already."""
    for each in error.errors(include_url=False):
        loc = each["loc"]
        if loc in told or any(loc[:end] in told and told[loc[:end]].covers for end in range(len(loc))):
            continue
        context = each.get("ctx", {})
        kind = PydanticCustomError("esm", "{text}", context) if each["type"] == "esm" else each["type"]
        yield InitErrorDetails(type=kind, loc=loc, input=each["input"], ctx=context)
