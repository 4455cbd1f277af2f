"""What the tests of the console share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.console.harbour import Harbour, harbour
from tests.flows.conftest import floor

__all__ = ["floor", "port"]


@pytest.fixture
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """A harbour in a directory with a short name, since sockets live in it."""
    with harbour(tmp_path_factory.mktemp("h")) as found:
        yield found
