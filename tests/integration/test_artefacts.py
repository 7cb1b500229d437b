"""How the programs of the services come into the user's cache folder; a small ``mvn`` stands in for the big one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration import artefacts

MVN = """\
#!/bin/sh
echo "$*" >> "$MVN_CALLS"
for argument in "$@"; do
    case "$argument" in
        -Djars=*) jars="${argument#-Djars=}" ;;
        --offline) offline=yes ;;
    esac
done
touch "$jars/first.jar"
[ "$offline" = "$MVN_WORKS_OFFLINE" ] || { echo "[ERROR] no route to the repository" >&2; exit 1; }
touch "$jars/second.jar"
"""


class Maven:
    """What the stand-in was asked, and whether its cache or the network has everything."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._calls = folder / "calls"
        self._monkeypatch = monkeypatch
        script = folder / "mvn"
        script.write_text(MVN)
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        monkeypatch.setenv("MVN_CALLS", str(self._calls))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        self.has("cache")

    def has(self, what: str) -> None:
        works = {"cache": "yes", "network": "", "nothing": "neither"}[what]
        self._monkeypatch.setenv("MVN_WORKS_OFFLINE", works)

    @property
    def calls(self) -> list[str]:
        """``offline`` or ``online``, in order."""
        lines = self._calls.read_text().splitlines()
        return ["offline" if line.endswith("--offline") else "online" for line in lines]


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maven:
    return Maven(tmp_path, monkeypatch)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_what_the_local_cache_has_needs_no_network(maven: Maven) -> None:
    assert names(artefacts.java("kafka")) == ["first.jar", "second.jar"]
    assert maven.calls == ["offline"]


def test_what_the_local_cache_lacks_comes_from_the_network(maven: Maven) -> None:
    maven.has("network")
    assert names(artefacts.java("kafka")) == ["first.jar", "second.jar"]
    assert maven.calls == ["offline", "online"]


def test_what_was_fetched_is_not_asked_for_again(maven: Maven) -> None:
    first = artefacts.java("kafka")
    assert artefacts.java("kafka") == first
    assert maven.calls == ["offline"]


def test_other_versions_have_a_folder_of_their_own(
    maven: Maven, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = artefacts.java("kafka")
    newer = tmp_path / "pom.xml"
    newer.write_text(artefacts.POM.read_text().replace("4.4.0", "4.5.0"))
    monkeypatch.setattr(artefacts, "POM", newer)
    after = artefacts.java("kafka")
    assert (before != after, maven.calls) == (True, ["offline", "offline"])


def test_half_a_fetch_counts_for_nothing_and_says_why(maven: Maven, tmp_path: Path) -> None:
    maven.has("nothing")
    with pytest.raises(artefacts.Unavailable, match=r"mvn said: .*no route to the repository"):
        artefacts.java("kafka")
    assert names(tmp_path / "cache" / "esm-tests") == ["kafka.lock"]
    maven.has("network")
    assert names(artefacts.java("kafka")) == ["first.jar", "second.jar"]


def test_two_runs_at_once_fetch_once(maven: Maven) -> None:
    with ThreadPoolExecutor(2) as both:
        one, other = both.map(artefacts.java, ["kafka", "kafka"])
    assert (one, maven.calls) == (other, ["offline"])
