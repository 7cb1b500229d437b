"""The ``esm`` command as a user types it, as far as no engine is needed: validate, schema, help, completion."""

import json
import os
import pty
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import esm
from tests.support.config import SQS, mapping_of

CONFIG = Path(__file__).parents[2] / "config"
COMMANDS = ["run", "validate", "schema", "filter-test", "demo"]


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m esm`` in a plain environment; neither stream is a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "esm", *map(str, arguments)],
        env={"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def run_on_a_terminal(*arguments: str, columns: int) -> str:
    """What ``python -m esm`` shows on a terminal that is ``columns`` wide."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "esm", *arguments],
        env={"PATH": os.environ.get("PATH", ""), "COLUMNS": str(columns), "TERM": "xterm-256color"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 65_536):
                shown += chunk
        except OSError:  # how Linux says that nobody has the terminal any more
            pass
        process.wait(timeout=50)
    os.close(leader)
    return shown.decode()


def completed(words: str, position: int) -> list[str]:
    """What bash offers at a word of the line."""
    answer = run(_ESM_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(position))
    assert answer.stderr == ""
    return answer.stdout.split()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(mapping_of("SQS", name="orders") + mapping_of("Kinesis", name="clicks").removeprefix("mappings:\n"))
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.yaml"
    file.write_text("worker: {concurency: 5}\n" + mapping_of("SQS", "batch_size: 0"))
    return file


# --- validate


def test_a_good_file_is_summed_up_and_its_notices_go_to_stderr(good: Path) -> None:
    answer = run("validate", "--config", good)
    assert answer.returncode == 0
    assert answer.stdout == "2 mappings: orders (sqs → lambda f), clicks (kinesis → lambda f)\n"
    assert answer.stderr.startswith(f"notice: {good}:3: mappings[1]: a record that always fails blocks its shard")
    assert answer.stderr.count("\n") == 1


def test_a_bad_file_is_refused_with_every_mistake_and_exit_code_2(bad: Path) -> None:
    answer = run("validate", "-c", bad)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.splitlines() == [
        f"{bad}:1: worker.concurency: unknown, did you mean concurrency?",
        f"{bad}:3: mappings[0].batch_size: 0, at least 1",
        "2 mistakes; nothing was started",
    ]


def test_programs_get_json_on_stdout_whether_it_is_good_or_bad(good: Path, bad: Path) -> None:
    answer = run("validate", "-c", good, "--output", "json")
    told = json.loads(answer.stdout)
    assert (answer.returncode, answer.stderr, told["valid"], told["mistakes"]) == (0, "", True, [])
    assert [notice["line"] for notice in told["notices"]] == [3]
    assert told["mappings"][0] == {
        "name": "orders",
        "uuid": "a70751a7-33bb-5cf8-ad43-1c467f991b7a",
        "enabled": True,
        "source": {"kind": "sqs", "name": "orders", "arn": SQS},
        "target": {"kind": "lambda", "name": "f"},
        "batch_size": 10,
        "window_in_seconds": 0.0,
    }
    answer = run("validate", "-c", bad, "-o", "json")
    told = json.loads(answer.stdout)
    assert (answer.returncode, answer.stderr, told["valid"], told["mappings"]) == (2, "", False, [])
    assert told["mistakes"][1] == {
        "file": str(bad),
        "line": 3,
        "path": "mappings[0].batch_size",
        "text": "0, at least 1",
    }


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "is empty, expected settings and mappings"),
        (b"\x7fELF\x02\x01\x01\x00", "holds control characters; is it a text file?"),
        (b"caf\xe9: 1\n", "is not text in UTF-8"),
        (None, "no such file or folder"),
    ],
)
def test_what_is_no_configuration_is_one_sentence_and_exit_code_2(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "x.yaml"
    if content is not None:
        file.write_bytes(content)
    answer = run("validate", "-c", file)
    assert answer.returncode == 2
    first, second = answer.stderr.splitlines()
    assert first.startswith(str(file))
    assert first.endswith(said)
    assert second == "1 mistake; nothing was started"


def test_a_folder_without_yaml_is_refused(tmp_path: Path) -> None:
    answer = run("validate", "-c", tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"{tmp_path}: is a folder without *.yaml or *.yml files\n")


def test_a_folder_and_variables_make_one_configuration(tmp_path: Path, good: Path) -> None:
    (tmp_path / "targets.yml").write_text("targets: {tally: {http: {url: '${URL}'}}}\n")
    more = mapping_of("SQS", "target: tally", name="third").replace("function_name: f, ", "")
    (tmp_path / "more.yaml").write_text(more)
    answer = run("validate", "-o", "json", ESM_CONFIG=str(tmp_path), URL="http://127.0.0.1:1", ESM_WORKER__FLEET="prod")
    told = json.loads(answer.stdout)
    assert [mapping["name"] for mapping in told["mappings"]] == ["orders", "clicks", "third"]
    assert told["mappings"][0]["uuid"] != "a70751a7-33bb-5cf8-ad43-1c467f991b7a"
    assert told["mappings"][2]["target"] == {"kind": "http", "name": "tally"}


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(mapping_of("SQS", "batch_size: '${SIZE}'"))
    answer = run("validate", "-c", file)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[0] == (
        f"{file}:2: mappings[0].batch_size: the environment has no SIZE; set it, or write ${{SIZE:-default}}"
    )
    assert run("validate", "-c", file, SIZE="3").returncode == 0


@pytest.mark.parametrize("name", ["sqs", "kinesis", "dynamodb", "kafka", "sandbox"])
def test_the_examples_pass_in_a_plain_environment(name: str) -> None:
    answer = run("validate", "-c", CONFIG / f"{name}.yaml")
    assert (answer.returncode, answer.stdout[:1].isdigit()) == (0, True), answer.stderr


def test_the_complete_example_passes_with_its_two_variables() -> None:
    answer = run("validate", "-c", CONFIG / "complete.yaml", TALLY_TOKEN="hunter2", HOSTNAME="here")
    assert (answer.returncode, answer.stdout[:10]) == (0, "4 mappings"), answer.stderr
    assert "hunter2" not in answer.stdout + answer.stderr
    assert run("validate", "-c", CONFIG / "complete.yaml").returncode == 2


# --- schema


def test_the_schema_is_one_document_that_validators_take() -> None:
    answer = run("schema")
    assert (answer.returncode, answer.stderr) == (0, "")
    schema = json.loads(answer.stdout)
    Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == {"worker", "admin", "aws", "leases", "targets", "mappings"}


# --- help, versions, wrong use


def test_the_version_is_the_packages() -> None:
    answer = run("--version")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"esm {esm.__version__}\n", "")


def test_the_console_script_is_the_same_command() -> None:
    script = Path(sys.executable).parent / "esm"
    answer = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=50, check=False)
    assert (answer.returncode, answer.stdout) == (0, f"esm {esm.__version__}\n")


def test_help_lists_every_command_on_80_columns_without_colour() -> None:
    answer = run("--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    listed = answer.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    assert max(map(len, answer.stdout.splitlines())) <= 80
    assert "..." not in answer.stdout.replace("[ARGS]...", "")
    assert "\x1b" not in answer.stdout


def test_no_arguments_are_the_help_and_exit_code_2() -> None:
    answer = run()
    assert answer.returncode == 2
    assert "Commands:" in answer.stderr


@pytest.mark.parametrize("command", ["validate", "schema"])
def test_each_command_explains_itself_on_80_columns(command: str) -> None:
    answer = run(command, "-h")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"Usage: esm {command} [OPTIONS]")
    assert max(map(len, answer.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["frobnicate"], "No such command 'frobnicate'."),
        (["validat", "-c", "x"], "No such command 'validat'. Did you mean 'validate'?"),
        (["validate"], "Missing option '--config'"),
        (["validate", "-c", "x", "--output", "xml"], "'xml' is not one of 'text', 'json'."),
        (["validate", "-c", "x", "y"], "Got unexpected extra argument"),
        (["--frob"], "No such option: --frob"),
    ],
)
def test_wrong_use_is_one_error_on_stderr_and_exit_code_2(arguments: list[str], said: str) -> None:
    answer = run(*arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("Usage: esm ")
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_output_that_nobody_reads_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "esm", "schema"]
    answer = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=50, check=False)
    os.close(writer)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr


def test_nothing_is_coloured_without_a_terminal_whatever_is_asked(good: Path, bad: Path) -> None:
    asked = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "PY_COLORS": "1", "TERM": "xterm-256color"}
    for arguments in (["--help"], ["validate", "-c", good], ["validate", "-c", bad], ["frob"]):
        answer = run(*arguments, **asked)
        assert "\x1b" not in answer.stdout + answer.stderr


def test_a_terminal_of_80_columns_is_not_overrun() -> None:
    for arguments in (["--help"], ["validate", "--help"]):
        shown = run_on_a_terminal(*arguments, columns=80)
        assert "Usage: esm" in shown
        assert max(map(len, shown.splitlines())) <= 80


# --- completion


def test_completion_offers_commands_options_and_words() -> None:
    assert completed("esm ", 1) == COMMANDS
    assert completed("esm va", 1) == ["validate"]
    assert set(completed("esm validate --", 2)) == {"--config", "--output", "--help"}
    assert completed("esm validate --output j", 3) == ["json"]


def test_completion_of_commands_imports_none_of_them(tmp_path: Path) -> None:
    answer = run(
        _ESM_COMPLETE="complete_bash",
        COMP_WORDS="esm ",
        COMP_CWORD="1",
        PYTHONPROFILEIMPORTTIME="1",
    )
    imported = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert "esm.cli.main" in imported
    assert not {name for name in imported if name.startswith("esm.")} - {"esm.cli", "esm.cli.main", "esm.cli.output"}


@pytest.mark.parametrize("shell, mark", [("bash", "complete -o"), ("zsh", "#compdef esm"), ("fish", "complete ")])
def test_the_completion_of_each_shell_can_be_shown(shell: str, mark: str) -> None:
    answer = run(_ESM_COMPLETE=f"source_{shell}")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert mark in answer.stdout
    assert "_ESM_COMPLETE" in answer.stdout


def test_completion_can_be_installed(tmp_path: Path) -> None:
    here = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else the shell is looked up
    answer = run("--install-completion", "bash", **here)
    assert (answer.returncode, answer.stderr) == (0, "")
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_ESM_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


# --- what it costs

HEAVY = ("aiobotocore", "botocore", "aiohttp", "aiokafka", "rich", "anyio", "structlog", "asyncio", "sqlite3", "uvloop")


def test_validate_imports_neither_engine_nor_vendors(good: Path) -> None:
    answer = run("validate", "-c", good, PYTHONPROFILEIMPORTTIME="1")
    assert answer.returncode == 0
    lines = [line for line in answer.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    packages = {name.partition(".")[0] for name in imported}
    assert {"pydantic", "yaml"} <= packages
    assert packages.isdisjoint(HEAVY)
    assert {name.split(".")[1] for name in imported if name.startswith("esm.")} == {"cli", "config", "domain"}


def cpu_of(*arguments: str | Path) -> float:
    """The least CPU seconds of three runs of Python with ``arguments``."""
    spent: list[float] = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, timeout=50, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def test_validate_costs_little_beside_its_libraries() -> None:
    """Measured: 0.24 s of CPU, 0.11 of it for importing the libraries; one vendor's client would add 0.25."""
    validate = cpu_of("-m", "esm", "validate", "-c", CONFIG / "sqs.yaml")
    libraries = cpu_of("-c", "import pydantic, typer, typer.main, yaml, msgspec")
    assert validate < 3.5 * libraries
