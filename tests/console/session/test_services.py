"""What the engine is given for each person: opened once, closed for good."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.console.console_stack import ConsoleStack

from pilotage.console.session.services import services_for, user_with
from pilotage.telemetry.errors import StoreError

AT_ONCE = 8


def test_look_ups_at_the_same_moment_share_one_reader_of_telemetry(port: ConsoleStack) -> None:
    services, user = services_for(port.paths), user_with(port.paths, port.tokens["vic"])
    together = threading.Barrier(AT_ONCE)

    def look() -> int:
        together.wait()
        return id(services.toolbox(user))

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            seen = {each.result() for each in [pool.submit(look) for _ in range(AT_ONCE)]}
        assert len(seen) == 1
    finally:
        services.close()


def test_nothing_is_opened_by_a_thread_that_comes_after_the_end(port: ConsoleStack) -> None:
    services, user = services_for(port.paths), user_with(port.paths, port.tokens["vic"])
    services.close()
    with pytest.raises(StoreError, match="closing"):
        services.toolbox(user)
