"""Targets: by name, inline or as function_name; what each kind takes."""

from pathlib import Path

import pytest

from esm.config.models import GRACE_BEYOND_TIMEOUT_IN_SECONDS
from esm.config.targets import HttpTarget, LambdaTarget, PythonTarget, TargetKind
from tests.support.config import SQS, complaints, load_text

FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:f:PROD"


def file_with(target: str) -> str:
    return f"mappings:\n- name: m\n  event_source_arn: {SQS}\n  target: {target}\n"


@pytest.mark.parametrize(
    "target, kind, settings",
    [
        ("{lambda: {function_name: f}}", TargetKind.LAMBDA, LambdaTarget),
        ("{Lambda: {FunctionName: f, Qualifier: PROD}}", TargetKind.LAMBDA, LambdaTarget),
        ("{http: {url: 'https://a/b?c', timeout_in_seconds: 900}}", TargetKind.HTTP, HttpTarget),
        ("{python: {handler: 'app.orders:handle', timeout_in_seconds: '1'}}", TargetKind.PYTHON, PythonTarget),
    ],
)
def test_an_inline_target_is_called_as_its_mapping(
    tmp_path: Path, target: str, kind: TargetKind, settings: type[object]
) -> None:
    config = load_text(tmp_path, file_with(target)).config
    resolved = config.target_of(config.mappings[0])
    assert (resolved.name, resolved.kind, resolved.shared) == ("m", kind, False)
    assert isinstance(resolved.settings, settings)


def test_a_named_target_is_shared(tmp_path: Path) -> None:
    text = "targets:\n  tally: {http: {url: 'http://a'}, reserved_concurrency: 20}\n" + file_with("tally")
    config = load_text(tmp_path, text).config
    resolved = config.target_of(config.mappings[0])
    assert (resolved.name, resolved.kind, resolved.shared) == ("tally", TargetKind.HTTP, True)
    assert resolved.config.reserved_concurrency == 20


def test_a_function_name_is_a_lambda_target(tmp_path: Path) -> None:
    text = file_with("x").replace("target: x", f"function_name: {FUNCTION}")
    config = load_text(tmp_path, text).config
    resolved = config.target_of(config.mappings[0])
    assert (resolved.name, resolved.kind, resolved.shared) == (FUNCTION, TargetKind.LAMBDA, False)
    assert isinstance(resolved.settings, LambdaTarget)
    assert str(resolved.settings.arn) == FUNCTION


@pytest.mark.parametrize(
    "target, said",
    [
        ("{}", "target: expected one of lambda, http and python"),
        ("{reserved_concurrency: 1}", "target: expected one of lambda, http and python"),
        ("5", "target: 5, expected a mapping of settings"),
        ("[a]", "target: a list, expected a mapping of settings"),
        ("nope", "target: nope, no such target, and there is no targets section"),
        ("{lamda: {}}", "target.lamda: unknown, did you mean lambda?"),
        ("{http: {}}", "target.http.url: is missing"),
        ("{http: {url: 'http://a', timeout_in_seconds: 0}}", "target.http.timeout_in_seconds: 0, at least 1"),
        ("{http: {url: 'http://a', timeout_in_seconds: 901}}", "target.http.timeout_in_seconds: 901, at most 900"),
        ("{http: {url: 'http://a', method: PUT}}", "target.http.method: unknown"),
        ("{http: {url: 'http://a', headers: {a b: c}}}", "target.http.headers.'a b': is no name of an HTTP header"),
        (
            '{http: {url: "http://a", headers: {a: "b\\nc"}}}',
            "target.http.headers.a: the value of an HTTP header is one line without control characters",
        ),
        (
            "{http: {url: 'http://a', headers: {Content-Length: '5'}}}",
            "target.http.headers.Content-Length: is set by the worker itself: it says how the event is sent",
        ),
        (
            "{http: {url: 'http://a', headers: {transfer-encoding: chunked}}}",
            "target.http.headers.transfer-encoding: is set by the worker itself: it says how the event is sent",
        ),
        (
            "{http: {url: 'http://me:pw@a', headers: {Authorization: 'Bearer x'}}}",
            "target.http.headers.Authorization: url has a login already, expected one of the two",
        ),
        (
            "{lambda: {function_name: f, region: 'not a region!'}}",
            "target.lambda.region: 'not a region!', expected a region, like eu-west-1",
        ),
        (
            "{lambda: {function_name: f, endpoint_url: 'http://me:pw@a:1'}}",
            "target.lambda.endpoint_url: has a login, which AWS's clients do not send; expected http://host:port",
        ),
        ("{python: {handler: 'app.orders'}}", "target.python.handler: app.orders, expected module:function"),
        ("{python: {handler: 'a-b:c'}}", "target.python.handler: a-b:c, expected module:function"),
        (
            "{lambda: {function_name: 'f:PROD', qualifier: TEST}}",
            "target.lambda.qualifier: function_name already names the version or alias PROD",
        ),
        (
            "{lambda: {function_name: f}, reserved_concurrency: -1}",
            "target.reserved_concurrency: -1, at least 0",
        ),
    ],
)
def test_what_a_target_does_not_take_is_said(tmp_path: Path, target: str, said: str) -> None:
    assert f"4: mappings[0].{said}" in complaints(tmp_path, file_with(target))


@pytest.mark.parametrize("url", ["localhost:9000", "ftp://a", "http://", "http://a b", "http://[::1", "http://a:x"])
def test_what_is_no_web_address_is_refused(tmp_path: Path, url: str) -> None:
    (line,) = complaints(tmp_path, file_with(f"{{http: {{url: '{url}'}}}}"))
    assert line.startswith("4: mappings[0].target.http.url: ")
    assert line.endswith("expected http://host:port/path or https://…")


def test_reservations_fit_into_the_worker(tmp_path: Path) -> None:
    text = (
        "worker: {concurrency: 30}\ntargets:\n  tally: {http: {url: 'http://a'}, reserved_concurrency: 20}\n"
        + file_with("{http: {url: 'http://b'}, reserved_concurrency: %d}")
        + f"- {{name: n, event_source_arn: {SQS}, target: tally}}\n"
    )
    assert load_text(tmp_path, text % 10).config.worker.concurrency == 30
    assert complaints(tmp_path, text % 11) == ["2: targets: targets reserve 31 invocations, worker.concurrency is 30"]


def test_the_grace_period_is_the_longest_timeout_and_a_long_poll_unless_set(tmp_path: Path) -> None:
    worker = load_text(tmp_path, file_with("{http: {url: 'http://a'}}")).config.worker
    assert worker.grace_period(60) == 60 + GRACE_BEYOND_TIMEOUT_IN_SECONDS == 85
    text = "worker: {grace_period_in_seconds: 0}\n" + file_with("{http: {url: 'http://a'}}")
    assert load_text(tmp_path, text).config.worker.grace_period(60) == 0
