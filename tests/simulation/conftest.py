"""How many worlds: ``ESM_SEEDS=1000`` (``make sim SEEDS=1000``), else 20; or one to replay: ``ESM_SEED=7``."""

import os

import pytest

DEFAULT_SEEDS = 20


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each world is a test of its own, named after its seed."""
    if "seed" in metafunc.fixturenames:
        one = os.environ.get("ESM_SEED")
        seeds = [int(one)] if one else range(int(os.environ.get("ESM_SEEDS", DEFAULT_SEEDS)))
        metafunc.parametrize("seed", seeds)
