"""The live loop's counters say the same as the bulk computation, and both the same as DuckDB's SQL."""

from __future__ import annotations

import random

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pilotage.telemetry.forecast.counters import Counters, Keys, NamedCodes, counters_of, stats_from
from pilotage.telemetry.forecast.history_file import read_history
from pilotage.telemetry.forecast.point_in_time import (
    BURST_S,
    FAST,
    LEVELS,
    RECENT_S,
    SLOW,
    LevelStats,
    assemble,
    features,
    level_codes,
    level_stats,
)
from pilotage.telemetry.forecast.run_history import Flags, RunHistory


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> RunHistory:
    """A busy site: runs overlap, begin and end in the same second, are cancelled and left running."""
    draw = random.Random(11)
    rows = ["run_id,deployment,owner,queue,submitted_at,ended_at,outcome,memory"]
    for number in range(600):
        deployment = draw.randrange(9)
        at = draw.randrange(9000)
        outcome = draw.choice(("COMPLETED", "COMPLETED", "FAILED", "CANCELLED", "RUNNING"))
        ended = "" if outcome == "RUNNING" else at + draw.choice((0, 1, 5, 60, 700, 4000))
        rows.append(
            f"r{number},d{deployment},o{deployment % 3},q{deployment % 2},{at},{ended},{outcome},{deployment % 2}"
        )
    path = tmp_path_factory.mktemp("busy") / "site.csv"
    path.write_text("\n".join(rows))
    return read_history(path)


@pytest.fixture(scope="module")
def failed(history: RunHistory) -> Flags:
    return history.failed(["FAILED"])


def keys_of(history: RunHistory) -> list[Keys]:
    codes = level_codes(history)
    assert set(codes) == set(LEVELS)
    return [tuple(str(codes[level][row]) for level in LEVELS) for row in range(len(history))]


def played(
    history: RunHistory, failed: Flags, until: float = float("inf")
) -> tuple[Counters, dict[int, tuple[tuple[float, ...], ...]]]:
    """Walk through a history event by event; what each run knew, by its row."""
    counters, knew, keys = Counters(), {}, keys_of(history)
    completed = history.completed()
    events: list[tuple[float, int, int]] = [(float(at), 0, row) for row, at in enumerate(history.submitted)]
    events += [(float(history.ended[row]), 1, int(row)) for row in np.flatnonzero(history.has_ended())]
    for at, is_end, row in sorted(events):
        if at >= until:
            break
        if is_end:
            counters.ended(
                keys[row], at, failed=bool(failed[row]), completed=bool(completed[row]),
                log_duration=float(np.log1p(at - history.submitted[row])),
            )  # fmt: skip
        else:
            knew[row] = counters.values(keys[row], at)
            counters.submitted(keys[row], at)
    return counters, knew


def test_counting_event_by_event_gives_what_is_computed_in_bulk(history: RunHistory, failed: Flags) -> None:
    _, knew = played(history, failed)
    one_by_one = stats_from([knew[row] for row in range(len(history))])
    bulk = level_stats(history, failed, level_codes(history))
    for level in LEVELS:
        for name, left, right in zip(LevelStats._fields, one_by_one[level], bulk[level], strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9, err_msg=f"{level} {name}")
    found = assemble(one_by_one, history.submitted, history.numbers, clock=history.clock)
    np.testing.assert_allclose(found.rows, features(history, failed).rows, rtol=1e-5, atol=1e-5)


def test_counters_built_in_bulk_go_on_like_those_that_saw_every_event(
    history: RunHistory, failed: Flags
) -> None:
    middle = 4000.5
    first = np.flatnonzero(history.submitted < middle)
    early = history.rows(first)
    # what had not ended by then had not ended
    ended = np.where(early.ended < middle, early.ended, np.inf)
    outcome = tuple(o if e < np.inf else "RUNNING" for o, e in zip(early.outcome, ended, strict=True))
    early = RunHistory(
        **{f: getattr(early, f) for f in early.__slots__} | {"ended": ended, "outcome": outcome}
    )
    codes = level_codes(history)
    names = {level: [str(code) for code in range(int(codes[level].max()) + 1)] for level in LEVELS}
    built = counters_of(
        early,
        failed[first],
        {level: NamedCodes(codes=codes[level][first], names=names[level]) for level in LEVELS},
        middle,
    )
    seen, _ = played(history, failed, middle)
    for keys in set(keys_of(history)):
        for left, right in zip(built.values(keys, middle), seen.values(keys, middle), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-6)


SQL = """
    WITH asks AS (SELECT rid, key, t FROM runs),
    ends AS (SELECT key, ended AS t, failed, completed, log_duration, rid FROM runs WHERE has_ended),
    known AS (
        SELECT a.rid, a.t AS now, e.*, row_number() OVER (PARTITION BY a.rid ORDER BY e.t DESC, e.rid DESC) - 1 AS back
        FROM asks a JOIN ends e ON a.key = e.key AND e.t < a.t
    ),
    streaks AS (
        SELECT rid, min(back) FILTER (NOT failed) AS good, min(back) FILTER (failed) AS bad FROM known GROUP BY rid
    ),
    of_ends AS (
        SELECT k.rid, count(*) AS ended, count(*) FILTER (failed) AS failures, count(*) FILTER (completed) AS completions,
            count(*) FILTER (failed AND now - t <= $1) AS recent_failures,
            coalesce(sum($2 * pow(1 - $2, back)) FILTER (failed), 0) AS fast,
            coalesce(sum($3 * pow(1 - $3, back)) FILTER (failed), 0) AS slow,
            coalesce(sum($3 * pow(1 - $3, back)) FILTER (completed), 0) AS slow_completed,
            sum(log_duration) AS log_duration, sum(log_duration * log_duration) AS log_duration_squares,
            max(log_duration) FILTER (back = 0) AS last_log_duration,
            min(now - t) FILTER (failed) AS since_failure, min(now - t) FILTER (NOT failed) AS since_other,
            min(now - t) AS since_end
        FROM known k GROUP BY k.rid
    ),
    of_asks AS (
        SELECT rid, row_number() OVER (PARTITION BY key ORDER BY t, rid) - 1 AS asked,
            t - lag(t) OVER (PARTITION BY key ORDER BY t, rid) AS since_submitted, t, key FROM asks
    )
    SELECT a.rid, coalesce(e.ended, 0) AS ended, coalesce(failures, 0) AS failures, coalesce(completions, 0) AS completions,
        coalesce(s.good, e.ended, 0) AS failures_in_a_row, coalesce(s.bad, e.ended, 0) AS others_in_a_row,
        a.asked - coalesce(e.ended, 0) AS in_flight,
        (SELECT count(*) FROM of_asks b WHERE b.key = a.key AND b.asked < a.asked AND b.t >= a.t - $4) AS burst,
        coalesce(recent_failures, 0) AS recent_failures, coalesce(fast, 0) AS fast, coalesce(slow, 0) AS slow,
        coalesce(slow_completed, 0) AS slow_completed, coalesce(log_duration, 0) AS log_duration,
        coalesce(log_duration_squares, 0) AS log_duration_squares, coalesce(last_log_duration, 0) AS last_log_duration,
        since_failure, since_other, since_end, a.since_submitted
    FROM of_asks a LEFT JOIN of_ends e USING (rid) LEFT JOIN streaks s USING (rid) ORDER BY a.rid
"""
"""The definition of the statistics: of one level, by run, over everything that had ended strictly before it."""


@pytest.mark.parametrize("level", LEVELS)
def test_the_counters_are_what_sql_says_of_the_whole_history(
    history: RunHistory, failed: Flags, level: str
) -> None:
    ended = history.has_ended()
    connection = duckdb.connect()
    columns = {
        "rid": np.arange(len(history)),
        "key": level_codes(history)[level],
        "t": history.submitted,
        "ended": np.where(ended, history.ended, 0.0),
        "has_ended": ended,
        "failed": failed,
        "completed": history.completed(),
        "log_duration": np.log1p(np.where(ended, history.ended - history.submitted, 0.0)),
    }
    connection.register("runs", pa.table(columns))
    found = connection.execute(SQL, [RECENT_S, FAST, SLOW, BURST_S]).fetchnumpy()
    _, knew = played(history, failed)
    counted = stats_from([knew[row] for row in range(len(history))])[level]
    for name, values in zip(LevelStats._fields, counted, strict=True):
        said = np.ma.filled(np.ma.asarray(found[name], dtype=np.float64), np.nan)
        np.testing.assert_allclose(values, said, rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_run_that_vanished_is_in_flight_no_more() -> None:
    counters, keys = Counters(), ("", "o", "d", "s", "q")
    counters.submitted(keys, 1.0)
    counters.vanished(keys)
    assert counters.values(keys, 2.0)[0][LevelStats._fields.index("in_flight")] == 0
