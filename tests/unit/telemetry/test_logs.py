"""What a log line looks like, and what never gets into one."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest
import structlog

from esm.domain.record import LaneId, Record
from esm.telemetry.logs import LEVELS, Level, compact, configure, shown

PAYLOAD = "4111-1111-1111-1111"
RECORD = Record(LaneId("orders", "orders"), 1, 0, "m-1", None, 0.0, json.dumps({"card": PAYLOAD}).encode())


class Stream(io.StringIO):
    """Stands in for stderr."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def stderr() -> Iterator[Stream]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Stream()
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def failing(error: Exception) -> Exception:
    try:
        raise error
    except Exception as raised:  # noqa: BLE001 - any error, to be shown
        return raised


class TestALine:
    def test_goes_to_stderr_and_leaves_stdout_to_what_was_asked_for(
        self, stderr: Stream, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configure("info", console=False)
        structlog.get_logger().info("hello")
        out, err = capsys.readouterr()
        assert (out, json.loads(err)["event"]) == ("", "hello")

    def test_is_one_json_object_with_time_level_event_and_fields(self, stderr: Stream) -> None:
        configure("info", console=False, stream=stderr)
        structlog.get_logger().warning("lease_lost", mapping="clicks", lane=LaneId("clicks", "s-1"), sequence=2**186)
        [line] = stderr.lines()
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert str(line.pop("timestamp")).endswith("Z"), "UTC"
        assert line == {
            "level": "warning",
            "event": "lease_lost",
            "mapping": "clicks",
            "lane": "clicks/s-1",
            "sequence": 2**186,
        }

    def test_stays_one_line_and_valid_json_whatever_the_fields_hold(self, stderr: Stream) -> None:
        configure("info", console=False, stream=stderr)
        structlog.get_logger().info("odd", text="a\nb\u2028ü", inf=float("inf"), set={"b", "a"}, keys={(1, 2): None})
        [line] = stderr.lines()
        assert (line["text"], line["inf"], line["set"]) == ("a\nb\u2028ü", "inf", ["a", "b"])

    @pytest.mark.parametrize("level", LEVELS)
    def test_below_the_level_is_left_out(self, stderr: Stream, level: Level) -> None:
        configure(level, console=False, stream=stderr)
        for each in LEVELS:
            structlog.get_logger().log(logging.getLevelNamesMapping()[each.upper()], each)
        assert [line["event"] for line in stderr.lines()] == list(LEVELS[LEVELS.index(level) :])

    def test_obeys_the_level_even_from_a_logger_that_was_used_before(self, stderr: Stream) -> None:
        configure("error", console=False, stream=stderr)
        log = structlog.get_logger()
        log.info("quiet")
        configure("info", console=False, stream=stderr)
        log.info("loud")
        assert [line["event"] for line in stderr.lines()] == ["loud"]

    def test_that_nobody_reads_any_more_stops_nothing(self, stderr: Stream) -> None:
        configure("info", console=False, stream=stderr)
        stderr.close()
        structlog.get_logger().info("into_the_void")
        assert stderr.closed


class TestForPeople:
    def test_is_plain_text_without_colour_when_it_is_no_terminal(self, stderr: Stream) -> None:
        configure("info", console=True, stream=stderr)
        structlog.get_logger().info("worker_started", mappings=3)
        assert stderr.getvalue().endswith("worker_started mappings=3\n")
        assert "\x1b" not in stderr.getvalue()

    def test_is_coloured_on_a_terminal(self, stderr: Stream) -> None:
        stderr.terminal = True
        configure("info", console=True, stream=stderr)
        structlog.get_logger().info("worker_started")
        assert "\x1b" in stderr.getvalue()

    def test_json_is_never_coloured(self, stderr: Stream) -> None:
        stderr.terminal = True
        configure("info", console=False, stream=stderr)
        structlog.get_logger().info("worker_started")
        assert stderr.lines()[0]["event"] == "worker_started"

    def test_shows_an_exception_below_the_line(self, stderr: Stream) -> None:
        configure("info", console=True, stream=stderr)
        structlog.get_logger().error("failed", exc_info=failing(ValueError("no such thing")))
        assert "ValueError: no such thing (telemetry/test_logs.py:" in stderr.getvalue()


class TestVendors:
    @pytest.mark.parametrize("name", ["aiokafka.conn", "botocore.endpoint", "aiohttp.server", "asyncio"])
    def test_come_out_like_ours_with_their_name(self, stderr: Stream, name: str) -> None:
        configure("info", console=False, stream=stderr)
        logging.getLogger(name).warning("broker %s is %s", 1, "away")
        [line] = stderr.lines()
        assert (line["level"], line["event"], line["logger"]) == ("warning", "broker 1 is away", name)

    def test_below_warning_are_silent_even_where_ours_are_not(self, stderr: Stream) -> None:
        configure("debug", console=False, stream=stderr)
        logging.getLogger("botocore.endpoint").debug("sending %s", PAYLOAD)
        logging.getLogger("aiohttp.access").info("GET /metrics")
        assert stderr.lines() == []

    def test_below_the_level_are_silent(self, stderr: Stream) -> None:
        configure("error", console=False, stream=stderr)
        logging.getLogger("aiokafka").warning("hm")
        logging.getLogger("aiokafka").critical("now!")
        assert [(line["level"], line["event"]) for line in stderr.lines()] == [("error", "now!")]

    def test_bring_their_exceptions_along(self, stderr: Stream) -> None:
        configure("info", console=False, stream=stderr)
        logging.getLogger("aiohttp.server").error("Error handling request", exc_info=failing(OSError("gone")))
        assert str(stderr.lines()[0]["exception"]).startswith("OSError: gone (")

    def test_with_a_broken_text_are_shown_as_far_as_it_goes(self, stderr: Stream) -> None:
        configure("info", console=False, stream=stderr)
        logging.getLogger("vendor").warning("%d of %d", "one", 2)
        assert stderr.lines()[0]["event"] == "%d of %d (TypeError while formatting)"

    def test_warnings_of_python_are_lines_too(self, stderr: Stream) -> None:
        configure("info", console=False, stream=stderr)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(False)  # catch_warnings put back the function that pytest set
            logging.captureWarnings(True)
            warnings.warn("this is old", DeprecationWarning, stacklevel=1)
            logging.captureWarnings(False)
        [line] = stderr.lines()
        assert (line["logger"], line["level"]) == ("py.warnings", "warning")
        assert "DeprecationWarning: this is old" in str(line["event"])


class TestPayloads:
    @pytest.mark.parametrize("console", [True, False])
    def test_do_not_come_along_with_a_record_or_bytes_in_a_field(self, stderr: Stream, console: bool) -> None:
        configure("info", console=console, stream=stderr)
        structlog.get_logger().info("odd", record=RECORD, entry=RECORD.entry, many=[RECORD], by_id={"m-1": RECORD})
        assert PAYLOAD not in stderr.getvalue()
        assert f"<{len(RECORD.entry)} bytes>" in stderr.getvalue()
        assert "<Record>" in stderr.getvalue()

    def test_do_not_come_along_as_a_variable_of_a_frame(self, stderr: Stream) -> None:
        def deliver(payload: str) -> None:
            raise ValueError(f"{len(payload)} characters")

        configure("info", console=False, stream=stderr)
        try:
            deliver(PAYLOAD)
        except ValueError:
            structlog.get_logger().exception("failed")
        assert "ValueError: 19 characters" in stderr.getvalue()
        assert PAYLOAD not in stderr.getvalue()

    def test_long_texts_are_cut(self) -> None:
        assert shown("x" * 5000) == "x" * 2000 + "… (5000 characters)"


class TestWhatIsShown:
    def test_names_numbers_and_texts_as_they_are(self) -> None:
        class Reason(Enum):
            AGE = "RecordAgeExceeded"

        assert shown([1, 1.5, True, None, "a"]) == [1, 1.5, True, None, "a"]
        assert shown(Reason.AGE) == "RecordAgeExceeded"
        assert shown(Path("/var/esm.db")) == "/var/esm.db"
        assert shown(OSError("gone")) == "OSError: gone"


class TestAnException:
    def test_names_its_frames_innermost_first_on_one_line(self) -> None:
        def inner() -> None:
            raise ValueError("two\nlines")

        def outer() -> Exception:
            try:
                inner()
            except ValueError as error:
                return error
            raise AssertionError

        text = compact(outer())
        assert text.startswith("ValueError: two lines (telemetry/test_logs.py:")
        assert text.index(" in inner < ") < text.index(" in outer")
        assert "\n" not in text

    def test_names_its_causes(self) -> None:
        try:
            try:
                raise KeyError("a")
            except KeyError as error:
                raise ValueError("no") from error
        except ValueError as error:
            text = compact(error)
        assert text.startswith("ValueError: no (")
        assert "; caused by KeyError: 'a' (" in text

    def test_names_what_it_was_raised_over_unless_that_was_hidden(self) -> None:
        def over(hidden: bool) -> str:
            try:
                try:
                    raise KeyError("a")
                except KeyError:
                    if hidden:
                        raise ValueError("no") from None
                    raise ValueError("no")  # noqa: B904 - that is what is looked at
            except ValueError as error:
                return compact(error)

        assert "; while handling KeyError: 'a' (" in over(hidden=False)
        assert "KeyError" not in over(hidden=True)

    def test_of_many_shows_the_first_few(self) -> None:
        text = compact(ExceptionGroup("all failed", [ValueError(str(number)) for number in range(100)]))
        assert text.startswith("ExceptionGroup: all failed (100 sub-exceptions); holds ValueError: 0; holds")
        assert text.count("holds") == 4

    def test_deep_in_recursion_is_short(self) -> None:
        def deep(left: int) -> None:
            if not left:
                raise ValueError("bottom")
            deep(left - 1)

        with pytest.raises(ValueError, match="bottom") as raised:
            deep(200)
        assert compact(raised.value).count(" in deep") == 8
