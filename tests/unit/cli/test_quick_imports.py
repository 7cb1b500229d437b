"""What is left out while a worker is imported, and that it is there again afterwards."""

import gc
import importlib
import os
import subprocess
import sys

import pytest

from esm.cli.quick_imports import quick_imports


def test_rich_is_not_found_inside_and_found_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rich", raising=False)
    with quick_imports(), pytest.raises(ImportError):
        importlib.import_module("rich")
    assert importlib.import_module("rich").__name__ == "rich"


def test_rich_that_was_imported_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    rich = importlib.import_module("rich")
    monkeypatch.setitem(sys.modules, "rich", rich)
    with quick_imports():
        assert importlib.import_module("rich") is rich
    assert sys.modules["rich"] is rich


@pytest.mark.parametrize("before", [None, "0"])
def test_plugins_of_pydantic_are_off_inside_and_as_before_afterwards(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is None:
        monkeypatch.delenv("PYDANTIC_DISABLE_PLUGINS", raising=False)
    else:
        monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", before)
    with quick_imports():
        assert os.environ["PYDANTIC_DISABLE_PLUGINS"] == "1"
    assert os.environ.get("PYDANTIC_DISABLE_PLUGINS") == before


def test_garbage_is_collected_again_afterwards_if_it_was_before() -> None:
    assert gc.isenabled()
    try:
        with quick_imports():
            assert not gc.isenabled()
        assert gc.isenabled()
        gc.disable()
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_failed_import_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rich", raising=False)
    monkeypatch.delenv("PYDANTIC_DISABLE_PLUGINS", raising=False)
    with pytest.raises(ModuleNotFoundError), quick_imports():
        importlib.import_module("esm.nothing_of_this_name")
    assert gc.isenabled()
    assert "rich" not in sys.modules
    assert "PYDANTIC_DISABLE_PLUGINS" not in os.environ


def test_the_command_run_imports_neither_rich_nor_aiokafka_nor_the_sandbox() -> None:
    script = """
import sys
sys.argv = ["esm", "run", "--config", "there-is-no-such.yaml"]
from esm.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code == 2, end.code
assert "esm.cli.run" in sys.modules
print([name for name in ("rich", "aiokafka", "esm.sandbox", "esm.cli.demo") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
