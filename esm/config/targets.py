"""Targets: where batches are sent."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from msgspec import Struct
from pydantic import AfterValidator, AliasChoices, Field

from esm.config.base import Breach, ConfigModel, Endpoint, Region, Url, Whole, entries, find, given, mistaken
from esm.domain.arn import Arn

DEFAULT_TIMEOUT_IN_SECONDS = 60
"""How long an http or python target may take where nothing is set."""

Timeout = Annotated[Whole, Field(ge=1, le=900)]

_FUNCTION = re.compile(
    r"(?:(?:arn:[a-z0-9-]+:lambda:[a-z0-9-]+:)?(?P<account>\d{12}):function:)?"
    r"(?P<name>[A-Za-z0-9_-]{1,64})(?::(?P<qualifier>\$LATEST|[A-Za-z0-9_-]{1,128}))?"
)


def _function_name(text: str) -> str:
    if len(text) > 256 or not _FUNCTION.fullmatch(text):
        raise mistaken("expected NAME, NAME:ALIAS, ACCOUNT:function:NAME or the ARN of a function")
    return text


FunctionName = Annotated[str, AfterValidator(_function_name)]
"""A function as Lambda's API names it: name, partial ARN or ARN, each with a version or alias behind a colon."""


def _handler(text: str) -> str:
    module, _, function = text.partition(":")
    if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise mistaken("expected module:function")
    return text


class LambdaTarget(ConfigModel):
    """A Lambda function, called through the Invoke API."""

    function_name: FunctionName
    """Name, partial ARN or ARN of the function; a version or alias may follow a colon."""
    qualifier: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Version or alias, where function_name has none."""
    timeout_in_seconds: Timeout | None = None
    """How long to wait for the reply; default: the function's own timeout + 5."""
    region: Region | None = None
    """Region of the function; default: the one in its ARN, else aws.region."""
    endpoint_url: Endpoint | None = None
    """Where Lambda is, if not at AWS's own address."""

    @classmethod
    def breaches(cls, data: dict[str, object]) -> Iterator[Breach]:
        """A qualifier is given once."""
        for _, function in find(data, "function_name"):
            match = _FUNCTION.fullmatch(function) if isinstance(function, str) else None
            if match and match["qualifier"]:
                for loc, _ in find(data, "qualifier"):
                    yield Breach(loc, f"function_name already names the version or alias {match['qualifier']}")

    @property
    def arn(self) -> Arn | None:
        """The function's ARN with its qualifier, where function_name is one."""
        return Arn.parse(self.function_name) if self.function_name.startswith("arn:") else None


FRAMING = frozenset(
    (
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""They say where the event ends and how it is coded: a wrong one would cut it, and a 200 would call that success."""


def _has_login(url: object) -> bool:
    return isinstance(url, str) and "@" in url.partition("://")[2].partition("/")[0]


class HttpTarget(ConfigModel):
    """A web server: each event is POSTed, any 2xx is success."""

    url: Url
    """Where events are POSTed to."""
    timeout_in_seconds: Timeout | None = None
    """How long to wait for the reply; default 60."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers sent with each event; write secrets as ${NAME}."""

    @classmethod
    def breaches(cls, data: dict[str, object]) -> Iterator[Breach]:
        """Header names and values must be sendable."""
        for loc, headers in find(data, "headers"):
            for name, value in entries(headers):
                if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                    yield Breach((*loc, name), "is no name of an HTTP header")
                elif name.lower() in FRAMING:
                    yield Breach((*loc, name), "is set by the worker itself: it says how the event is sent")
                elif name.lower() == "authorization" and _has_login(given(data, "url")):
                    yield Breach((*loc, name), "url has a login already, expected one of the two")
                elif isinstance(value, str) and re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
                    yield Breach((*loc, name), "the value of an HTTP header is one line without control characters")


class PythonTarget(ConfigModel):
    """A Python callable of this process: ``handler(event, context)``, plain or async."""

    handler: Annotated[str, AfterValidator(_handler)]
    """module:function, importable where the worker runs."""
    timeout_in_seconds: Timeout | None = None
    """How long the handler may take; default 60."""


class TargetKind(StrEnum):
    """The kinds of targets."""

    LAMBDA = "lambda"
    HTTP = "http"
    PYTHON = "python"


TargetSettings = LambdaTarget | HttpTarget | PythonTarget


class TargetConfig(ConfigModel):
    """One target: exactly one of lambda, http and python."""

    aws_lambda: LambdaTarget | None = Field(default=None, validation_alias=AliasChoices("lambda", "Lambda"))
    """A Lambda function."""
    http: HttpTarget | None = None
    """A web server."""
    python: PythonTarget | None = None
    """A Python callable."""
    reserved_concurrency: Annotated[Whole, Field(ge=0, le=10_000)] | None = None
    """Invocations of this target that a worker keeps free for it, and the most it runs at once; 0 turns it off."""

    @classmethod
    def breaches(cls, data: dict[str, object]) -> Iterator[Breach]:
        """One kind, neither none nor two."""
        kinds = [key for kind in TargetKind for (key,), _ in find(data, kind.value)]
        if not kinds:
            yield Breach((), "expected one of lambda, http and python")
        elif len(kinds) > 1:
            yield Breach((), f"{' and '.join(map(str, kinds))}, expected one of lambda, http and python")

    @property
    def settings(self) -> TargetSettings:
        """What was given."""
        settings = self.aws_lambda or self.http or self.python
        assert settings is not None, "breaches() lets no target without a kind pass"  # narrows the type
        return settings

    @property
    def kind(self) -> TargetKind:
        """Which of them was given."""
        match self.settings:
            case LambdaTarget():
                return TargetKind.LAMBDA
            case HttpTarget():
                return TargetKind.HTTP
            case PythonTarget():
                return TargetKind.PYTHON


class ResolvedTarget(Struct, frozen=True):
    """The target of one mapping, wherever it was declared."""

    name: str
    """Of a named target its name, of a function its name, of an inline target the mapping's name."""
    config: TargetConfig
    shared: bool
    """True for a named target: its reserved concurrency is one for all mappings that use it."""

    @property
    def kind(self) -> TargetKind:
        """lambda, http or python."""
        return self.config.kind

    @property
    def settings(self) -> TargetSettings:
        """The settings of that kind."""
        return self.config.settings
