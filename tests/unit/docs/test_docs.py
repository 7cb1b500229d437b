"""README and docs/ are of one mind with the code: tests, links, commands, events, metrics, YAML."""

import ast
import os
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer
from prometheus_client import Metric

from esm.cli.main import COMMANDS, app
from esm.config.load import load
from esm.config.support import NOT_YET
from esm.sandbox.__main__ import _parser
from esm.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
TESTS = ROOT / "tests"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of ``page`` that are written in ``language``."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.M | re.S)


def path_of(page: Path) -> str:
    """``page`` as a test's id."""
    return str(page.relative_to(ROOT))


# -- tests


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Every class of the tests by its name: a contract's tests are inherited."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in TESTS.rglob("*.py")]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def claims_in(body: list[ast.stmt]) -> set[str]:
    return {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def claims_of(node: ast.ClassDef) -> set[str]:
    bases = [classes()[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes()]
    return claims_in(node.body).union(*(claims_of(base) for base in bases))


@cache
def names_in(file: Path) -> frozenset[str]:
    """``test_x`` and ``TestY::test_x`` for every test of a file."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    inside = {f"{node.name}::{test}" for node in body if isinstance(node, ast.ClassDef) for test in claims_of(node)}
    return frozenset(claims_in(body) | inside)


@pytest.mark.parametrize("name, least", [("semantics.md", 90), ("architecture.md", 30)])
def test_every_test_that_a_page_names_exists(name: str, least: int) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", text_of(DOCS / name))
    assert len(named) >= least
    assert [f"{file}::{test}" for file, test in named if test not in names_in(ROOT / file)] == []


@pytest.mark.parametrize("name", ["semantics.md", "architecture.md"])
def test_no_test_is_named_without_its_file(name: str) -> None:
    assert re.findall(r"(?<!::)\btest_\w+(?!\w*\.py)\b(?!\.py)", text_of(DOCS / name)) == []


# -- links


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_decision_has_its_own_number_and_says_what_would_change_it() -> None:
    decisions = sorted((DOCS / "decisions").glob("*.md"))
    assert [each.name[:4] for each in decisions] == [f"{number:04d}" for number in range(1, len(decisions) + 1)]
    for each in decisions[1:]:  # the first is a list of libraries
        assert text_of(each).startswith(f"# {each.name[:4]}: ")
        for part in ("**Context.**", "**Decision.**", "**Why.**", "**What would change it.**"):
            assert part in text_of(each), f"{each.name} lacks {part}"


# -- commands


def code_of(page: Path) -> str:
    """All that is written as code, with continued lines joined."""
    text = text_of(page)
    fenced = re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    return "\n".join([*fenced, *spans]).replace("\\\n", " ")


def options_of(command: str) -> set[str]:
    context = typer.Context(typer.main.get_command(app))
    _, found, _ = context.command.resolve_command(context, [command])  # type: ignore[attr-defined] # a group's own
    return {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("page", [README, DOCS / "operations.md", DOCS / "configuration.md"], ids=path_of)
def test_every_esm_command_exists_with_its_options(page: Path) -> None:
    called = re.findall(r"^(?:[A-Z_]+=\S+ )*(?:\$ )?esm (.+)$", code_of(page), re.M)
    assert called
    for line in called:
        command, *rest = shlex.split(line.partition(">")[0])
        assert command in COMMANDS, line
        assert {word for word in rest if word.startswith("-")} <= options_of(command), line


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))], ids=path_of)
def test_every_word_of_make_exists(page: Path) -> None:
    words = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.M))
    called = re.findall(r"^make ([^#\n]+)", code_of(page), re.M)
    for line in called:
        assert {word for word in shlex.split(line) if "=" not in word} <= words, line


def test_the_demo_takes_what_the_readme_gives_it() -> None:
    given = re.findall(r"ARGS='(--[^']+)'", text_of(README))
    assert len(given) == 3
    used = {word for each in given for word in shlex.split(each) if word.startswith("-")}
    assert used <= options_of("demo")


def test_the_sandbox_takes_the_options_that_the_readme_gives_it() -> None:
    (command,) = re.findall(r"^python -m esm\.sandbox (.+)$", code_of(README), re.M)
    options = _parser().parse_args(shlex.split(command))
    assert options.queue[-1].startswith("orders,")


# -- YAML


def test_every_yaml_block_of_the_readme_is_a_valid_configuration(tmp_path: Path) -> None:
    found = blocks(README, "yaml")
    assert len(found) == 4
    for number, block in enumerate(found):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        assert load(file, {}).config.mappings


def test_the_first_example_is_summed_up_as_the_readme_says(tmp_path: Path) -> None:
    from esm.cli.validate import _summary

    file = tmp_path / "orders.yaml"
    file.write_text(blocks(README, "yaml")[0], encoding="utf-8")
    assert f"`{_summary(load(file, {}))}`" in text_of(README)


def test_the_first_handler_prints_orders_and_reports_poison(capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = blocks(README, "python")
    space: dict[str, object] = {}
    exec(source, space)  # noqa: S102 - the README's own example
    handler = space["orders"]
    assert callable(handler)
    event = {"Records": [{"messageId": "1", "body": "hello"}, {"messageId": "2", "body": "poison"}]}
    assert handler(event, None) == {"batchItemFailures": [{"itemIdentifier": "2"}]}
    assert capsys.readouterr().out == "order: hello\n"


def test_the_options_of_the_readme_are_options() -> None:
    (table,) = re.findall(r"\| option \| meaning \|\n\| --- \| --- \|\n(.*?)\n\n", text_of(README), re.S)
    rows = re.findall(r"^\| `(\w+)", table, re.M)
    assert len(rows) == 10
    described = text_of(DOCS / "configuration.md")
    assert [row for row in rows if f"| `{row}` |" not in described] == []


WORDS = {
    "a FIFO queue": "FIFO queues",
    "a stream consumer (enhanced fan-out)": "enhanced fan-out",
    "an MSK cluster by its ARN": "MSK by ARN",
    "an MSK cluster": "MSK by ARN",
    "an Amazon MQ broker": "Amazon MQ",
    "a DocumentDB cluster": "DocumentDB",
    "a factor above 1": "`parallelization_factor` above 1",
    "a tumbling window": "tumbling windows",
    "an encrypted filter": "encrypted filters",
    "the taking apart of KPL aggregates": "KPL de-aggregation",
    "a strict response": "strict responses",
    "a payload in the failure record": "payloads in failure records",
    "a lease table of KCL": "or KCL's",
    "a destination for successes": "destinations for successes",
    "an SNS topic as a destination": "destinations other than an SQS queue",
    "an S3 bucket as a destination": "destinations other than an SQS queue",
    "a Kafka topic as a destination": "destinations other than an SQS queue",
    "a URL as a destination": "destinations other than an SQS queue",
    "a file as a destination": "destinations other than an SQS queue",
    "a login by IAM": "logins by IAM or OAuth",
    "a login by OAuth": "logins by IAM or OAuth",
    "a schema registry": "schema registries",
    "a lease table in DynamoDB": "a lease table in DynamoDB",
    "the sharing of leases": "the sharing of leases among hosts",
    "more than one process": "several processes",
}
"""What the configuration refuses → how the README says it."""


def test_what_the_readme_calls_not_supported_is_what_the_configuration_refuses() -> None:
    (said,) = re.findall(r"\*\*Not supported yet\.\*\*(.*?)\n\n", text_of(README), re.S)
    assert WORDS.keys() == {each.what for each in NOT_YET}, (
        "was it built, or refused since?  Say so in README.md and here"
    )
    assert [word for word in WORDS.values() if word not in " ".join(said.split())] == []


# -- metrics and events


def metrics() -> set[str]:
    families: list[Metric] = list(Metrics("test").registry.collect())
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def events() -> set[str]:
    """The name of every log event of the worker."""
    found: set[str] = set()
    for file in (ROOT / "esm").rglob("*.py"):
        if "sandbox" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                method, owner, first = node.func.attr, node.func.value, node.args[0]
                logs = isinstance(owner, ast.Name) and owner.id == "log" and method in ("info", "warning", "error")
                if logs or method == "_log":
                    found |= {each.value for each in ast.walk(first) if _is_event(each)}
    return found


def _is_event(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def documented(heading: str) -> set[str]:
    """The names in the first column of the tables below ``heading`` of docs/operations.md."""
    (part,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text_of(DOCS / "operations.md"), re.M | re.S)
    cells = re.findall(r"^\| ([^|]+) \|", part, re.M)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} - {"outcome"}


def test_every_metric_is_explained_and_no_other() -> None:
    assert documented("Metrics") == metrics()


def test_every_log_event_is_explained_and_no_other() -> None:
    # The name of this one is chosen before it is logged: two literals that no call shows.
    chosen = {"kafka_commits_failing", "kafka_commits_work_again"}
    assert documented("Log events") == events() | chosen


@pytest.mark.parametrize("page", [README, *sorted(DOCS.rglob("*.md"))], ids=path_of)
def test_every_metric_and_event_that_a_page_mentions_exists(page: Path) -> None:
    spans = re.findall(r"`(\w+)[`{]", text_of(page))
    named = {span for span in spans if re.match(r"esm_[a-z]+_[a-z]", span)}
    assert named <= metrics()


# -- what must not be in there


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_no_page_holds_a_path_of_a_machine(page: Path) -> None:
    text = text_of(page)
    assert os.fspath(ROOT) not in text
    assert re.findall(r"(?<![\w.:/])/(?:home|root|tmp|work|Users)/", text) == []
