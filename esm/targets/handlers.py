"""Python handlers: found by name, called with an event, and whatever they do becomes an outcome."""

import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import cast

import orjson

from esm.domain.errors import NotReady
from esm.domain.outcome import Failed, Outcome, Succeeded
from esm.targets.answers import MAX_REPLY_BYTES, short
from esm.targets.lambda_context import LambdaContext

Handler = Callable[[object, LambdaContext], object]
"""``handler(event, context)``, plain or async."""


def load_handler(name: str) -> Handler:
    """The callable that ``name`` (``module:function``, dots allowed on both sides) names.

    Imports the module, so it may take seconds and run anything: call it in a thread.  The working directory can be
    imported from, as with ``python -m``.  Raises NotReady with a sentence for whatever goes wrong.
    """
    module_name, _, path = name.partition(":")
    try:
        found = _import(name, module_name)
        for attribute in path.split("."):
            if not hasattr(found, attribute):
                raise NotReady(
                    f"Handler {name}: {_called(found)} has no {attribute or 'name'}; expected module:function."
                )
            found = getattr(found, attribute)
    except NotReady:
        raise
    except BaseException as error:  # a module may do anything when it is imported, end the process for example
        raise NotReady(f"Handler {name}: importing {module_name} failed: {_described(error)}") from error
    if not callable(found):
        raise NotReady(f"Handler {name} is of type {type(found).__name__}, expected a function (event, context).")
    _check_arguments(name, found)
    return cast("Handler", found)


def is_async(handler: Handler) -> bool:
    """Whether calling ``handler`` makes a coroutine; also for objects with an async ``__call__``."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004 - not whether, but which


def perform(handler: Handler, event: bytes, context: LambdaContext) -> Outcome | Awaitable[object]:
    """Call a plain handler; an awaitable when it turned out to be async after all.  Never raises."""
    try:
        result = handler(_decoded(event), context)
    except BaseException as error:  # noqa: BLE001 - SystemExit too: a handler may fail, the worker goes on
        return _raised(error)
    return cast("Awaitable[object]", result) if inspect.isawaitable(result) else _returned(result)


async def perform_async(handler: Handler, event: bytes, context: LambdaContext) -> Outcome:
    """Call an async handler and wait for its result.  Never raises: after a cancellation nobody reads the outcome."""
    try:
        return await finish(cast("Awaitable[object]", handler(_decoded(event), context)))
    except BaseException as error:  # noqa: BLE001 - as above; here it would end the loop of all handlers
        return _raised(error)


async def finish(result: Awaitable[object]) -> Outcome:
    """The outcome of what a handler returned to be awaited.  Never raises."""
    try:
        return _returned(await result)
    except BaseException as error:  # noqa: BLE001 - as above
        return _raised(error)


def _import(name: str, module_name: str) -> object:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # a console script has its own folder there instead
    importlib.invalidate_caches()  # the file may have come since the last try
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            text = f"Handler {name}: there is no module {missing} in {here} or elsewhere on Python's path (PYTHONPATH)."
            raise NotReady(text) from error
        raise NotReady(f"Handler {name}: {module_name} imports {missing}, which is not installed here.") from error


def _called(found: object) -> str:
    return f"module {found.__name__}" if inspect.ismodule(found) else str(getattr(found, "__qualname__", type(found)))


def _check_arguments(name: str, handler: Callable[..., object]) -> None:
    try:
        signature = inspect.signature(handler)
    except (ValueError, TypeError):
        return  # some built-in callables do not tell
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise NotReady(f"Handler {name} takes {signature}, expected two arguments (event, context).") from error


def _decoded(event: bytes) -> object:
    try:
        return orjson.loads(event)
    except orjson.JSONDecodeError:
        # orjson refuses lone surrogates, which a producer may well escape into a JSON text; the standard library
        # does not.
        return cast("object", json.loads(event))


def _encoded(result: object) -> bytes:
    try:
        return orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # large integers, lone surrogates, Decimal: Lambda's runtime takes them
        return json.dumps(result, default=_number).encode()


def _number(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _returned(result: object) -> Outcome:
    try:
        reply = _encoded(result)
    except (TypeError, ValueError, RecursionError) as error:
        return Failed(f"The handler returned {type(result).__name__}, which is no JSON: {short(str(error))}")
    if len(reply) > MAX_REPLY_BYTES:
        return Failed(f"The handler returned {len(reply)} bytes of JSON, at most {MAX_REPLY_BYTES} are taken.")
    return Succeeded(reply)


def _raised(error: BaseException) -> Failed:
    return Failed(f"The handler raised {_described(error)}")


def _described(error: BaseException) -> str:
    """Type, message and place; the error itself is dropped, for its frames hold the event."""
    try:
        message = short(str(error))
    except Exception:  # noqa: BLE001 - a __str__ that fails is no reason to lose the rest
        message = ""
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    ours = os.path.dirname(__file__)
    where = [frame for frame in frames if os.path.dirname(frame.filename) != ours and "importlib" not in frame.filename]
    return f"{text} ({os.path.basename(where[-1].filename)}:{where[-1].lineno})" if where else text
