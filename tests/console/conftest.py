"""What the tests of the console share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.console.console_stack import ConsoleStack, console_stack
from tests.flows.conftest import prefect_probe

__all__ = ["port", "prefect_probe"]


@pytest.fixture
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleStack]:
    """A console stack in a directory with a short name, since sockets live in it."""
    with console_stack(tmp_path_factory.mktemp("h")) as found:
        yield found
