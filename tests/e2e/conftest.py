"""What tests of the whole command share."""

import anyio
import pytest

from tests.support.side_by_side import SCENARIO, Results, run_all


@pytest.fixture(scope="session")
def beside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of the chosen tests that run side by side: see tests/support/side_by_side.py.

    Not an async fixture: one of a session keeps the plugin's loop for all tests that follow, whatever backend and
    whatever time they ask for.
    """
    chosen = [getattr(item, "obj", None) for item in request.session.items]
    scenarios = dict(getattr(test, SCENARIO) for test in chosen if hasattr(test, SCENARIO))
    return anyio.run(run_all, scenarios.items(), tmp_path_factory.mktemp("beside"))
