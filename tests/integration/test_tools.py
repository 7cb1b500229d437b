"""A machine that lacks a tool is told what to install, and in CI the test has failed."""

import pytest

from scripts.bootstrap import TOOLS
from tests.integration.tools import require

PACKAGES = {
    "promtool": "prometheus",
    "java": "default-jre-headless",
    "mvn": "maven",
    "node": "nodejs",
    "npm": "npm",
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_missing_tool_skips_with_the_package_that_has_it(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception) as left:
        require(tool)
    expected = f"needs {tool}, which is not on the PATH. On Debian and Ubuntu: apt install {PACKAGES[tool]}"
    assert left.value.msg == expected


def test_a_missing_tool_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt install maven"):
        require("mvn")
