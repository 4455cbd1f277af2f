"""What another attempt does again, told from the tasks of the last one."""

from __future__ import annotations

from tests.telemetry.samples import a_task_run

from pilotage.telemetry.facts import StateType
from pilotage.telemetry.queries.retry_impact import retry_impact_of


def test_only_what_keeps_its_result_is_not_done_again() -> None:
    told = retry_impact_of(
        [
            a_task_run(1, task_key="extract-0a1b2c3d", kept=True),
            a_task_run(2, task_key="load-0a1b2c3d"),
            a_task_run(3, task_key="load-0a1b2c3d"),
            a_task_run(4, task_key="publish-0a1b2c3d", kept=True, state_type=StateType.FAILED),
        ]
    )
    assert told.kept == (("extract", 1),)
    assert told.again == (("load", 2), ("publish", 1))
    assert told.words() == "load (2 times), publish and what follows run again; extract taken from storage"


def test_only_the_last_attempt_tells() -> None:
    told = retry_impact_of(
        [
            a_task_run(1, task_key="load-0a1b2c3d", attempt=1, state_type=StateType.FAILED),
            a_task_run(2, task_key="load-0a1b2c3d", attempt=2, kept=True, state_name="Cached"),
        ]
    )
    assert (told.again, told.kept) == ((), (("load", 1),))


def test_what_pilotage_put_into_a_run_is_none_of_its_tasks() -> None:
    told = retry_impact_of([a_task_run(1, task_key="pilotage.remediation")])
    assert not told.known
    assert told.words() == ""


def test_a_name_that_would_move_a_cursor_is_shown_harmless_and_many_are_counted() -> None:
    told = retry_impact_of([a_task_run(n, task_key=f"\x1b[2J{n:02d}") for n in range(12)])
    assert "\x1b" not in told.words()
    assert "and 4 more and what follows" in told.words()
