"""``esm filter-test`` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

RECORDS = [{"body": '{"kind":"retail"}'}, {"body": "plain"}, {"body": '{"kind":"whole\u00e9"}', "messageId": "m"}]
PATTERN = '{"body":{"kind":["retail"]}}'


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    command = [sys.executable, "-m", "esm.cli.main", "filter-test", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=50, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def lines_of(records: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in records)


def test_each_line_is_answered_by_a_line(tmp_path: Path) -> None:
    file = tmp_path / "records.ndjson"
    file.write_bytes(lines_of(RECORDS))
    code, out, err = run("--source", "sqs", "--pattern", PATTERN, "--records", str(file), "--output", "json")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"line": 1, "matched": True},
        {"line": 2, "matched": False},
        {"line": 3, "matched": False},
    ]


def test_patterns_come_from_files_too_records_from_stdin_and_one_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "pattern.json"
    file.write_text('{"body": ["plain"]}\n')
    stdin = b"\n" + lines_of(RECORDS)
    code, out, _ = run("-s", "sqs", "-p", PATTERN, "-p", f"@{file}", "-r", "-", stdin=stdin)
    assert code == 0
    assert out.split() == ["line", "matched", "2", "yes", "3", "yes", "4", "no"]


def test_a_record_of_kafka_is_one_of_its_records(tmp_path: Path) -> None:
    stdin = b'{"topic":"t","partition":0,"offset":1,"value":"eyJhIjoxfQ=="}\n'  # {"a":1}
    code, out, _ = run("-s", "kafka", "-p", '{"value":{"a":[1]}}', "-r", "-", "-o", "json", stdin=stdin)
    assert (code, json.loads(out)) == (0, {"line": 1, "matched": True})


def test_a_bad_pattern_is_exit_2_with_its_place() -> None:
    code, out, err = run("-s", "sqs", "-p", "{}", "-p", '{"body":{"a":[{"wildcard":"x"}]}}', "-r", "-", "-o", "json")
    assert (code, out) == (2, "")
    assert err == (
        "Pattern 2: Invalid filter pattern definition. body.a[0].wildcard: "
        "AWS does not offer this operator in event source mappings.\n"
    )


def test_what_cannot_be_read_is_exit_2_with_a_sentence(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    code, _, err = run("-s", "sqs", "-p", f"@{missing}", "-r", "-")
    assert code == 2
    assert err.startswith(f"{missing}: cannot be read as a pattern: ")
    assert run("-s", "sqs", "-p", PATTERN, "-r", missing)[::2] == (
        2,
        f"{missing}: cannot be read: No such file or directory.\n",
    )
    code, out, err = run(
        "-s", "sqs", "-p", PATTERN, "-r", "-", "-o", "json", stdin=lines_of(RECORDS[:1]) + b"\xff[1]\n"
    )
    assert (code, json.loads(out)["line"]) == (2, 1)
    assert err == "stdin:2: Expected one record of an event as a JSON object.\n"
    code, _, err = run("-s", "sqs", *["-p", "{}"] * 11, "-r", "-")
    assert (code, err) == (2, "Found 11 patterns, expected at most 10.\n")


def test_it_starts_without_engine_configuration_and_vendors() -> None:
    script = (
        "import sys; sys.argv = ['esm', 'filter-test', '-s', 'sqs', '-p', '{}', '-r', '-']\n"
        "from esm.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in sys.modules if name.startswith(('esm.engine', 'esm.config', 'esm.sources', 'aio',"
        " 'boto', 'anyio', 'structlog'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], input=b"", capture_output=True, timeout=50, check=True)
    assert done.stdout.decode().splitlines() == ["line  matched", "[]"]
