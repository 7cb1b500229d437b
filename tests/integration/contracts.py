"""The contract suites on real services: their own tests, with worlds that a file here makes."""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType


def claims(
    contract: ModuleType, world: str, *, but: frozenset[str] = frozenset()
) -> Mapping[str, Callable[..., object]]:
    """The tests of ``contract`` that take the fixture ``world``, by name, for the ``globals()`` of a test file.

    ``but`` are those that a service cannot be put to.  Raises LookupError for one that is not there.
    """
    found = {
        name: test
        for name, test in vars(contract).items()
        if name.startswith("test_") and world in inspect.signature(test).parameters
    }
    if unknown := but - found.keys():
        raise LookupError(f"{contract.__name__} has no test {', '.join(sorted(unknown))} that takes {world}")
    return {name: test for name, test in found.items() if name not in but}
