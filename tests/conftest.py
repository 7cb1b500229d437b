"""What every test shares: the event loop's backend, and the mark of tests that meet real services.

Async tests run by anyio's own plugin: ``pytestmark = pytest.mark.anyio``.  A test for several backends takes them by
``@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])``.
"""

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.support")  # a suite that several places run stands there

INTEGRATION = Path(__file__).parent / "integration"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The backend of production, once a session, so that fixtures of any scope may be async."""
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in tests/integration bears the mark: ``-m 'not integration'`` leaves it out from any folder."""
    for item in items:
        if item.path.is_relative_to(INTEGRATION):
            item.add_marker(pytest.mark.integration)
