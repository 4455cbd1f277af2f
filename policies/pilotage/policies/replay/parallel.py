"""Replays very many recorded decisions, on as many processes as there are cores.

A decision rests on its own facts alone, so that any process can make it again. Reading stays with one process;
what it hands out are plain rows, and what comes back are counts. Their order is kept.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from itertools import chain, islice

from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate
from pilotage.policies.gate.recorded import made_again
from pilotage.policies.ledger.decisions import StoredDecision, recorded_decision_from
from pilotage.policies.replay.what_if import Replay
from pilotage.telemetry.errors import AdapterError

BATCH = 250
"""Decisions that one process makes again at a time: a quarter of a second."""
FEW = 16 * BATCH
"""Up to so many are replayed right here: starting processes takes about two seconds."""
MOST_PROCESSES = 16


def replayed_rows(bundle: Bundle, rows: Iterable[StoredDecision], processes: int | None = None) -> Replay:
    """What this bundle would have decided on the facts of each of these rows.

    `processes`: how many share the work; by default one for each core when there is work for them. A row that
    is no decision any more is counted as skipped.
    """
    waiting = iter(rows)
    first = list(islice(waiting, FEW + 1))
    if processes is None:
        processes = min(os.cpu_count() or 1, MOST_PROCESSES) if len(first) > FEW else 1
    batches = _batches(chain(first, waiting))
    report = Replay()
    for part in _shared(bundle, batches, processes) if processes > 1 else _alone(bundle, batches):
        report.add(part)
    return report


def _batches(rows: Iterator[StoredDecision]) -> Iterator[list[StoredDecision]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _alone(bundle: Bundle, batches: Iterator[list[StoredDecision]]) -> Iterator[Replay]:
    gate = Gate(bundle)
    return (_replayed(gate, batch) for batch in batches)


def _shared(bundle: Bundle, batches: Iterator[list[StoredDecision]], processes: int) -> Iterator[Replay]:
    parcel = pickle.dumps(bundle)
    under_way: deque[Future[Replay]] = deque()
    # a forked child would inherit the locks and connections of whoever calls
    fresh = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=fresh) as pool:
            for batch in batches:
                under_way.append(pool.submit(_in_process, parcel, batch))
                if len(under_way) > 2 * processes:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
    except BrokenProcessPool as exc:
        raise AdapterError(
            f"Replaying decisions on {processes} processes: one of them was killed, most likely for want of memory. "
            "Replay fewer days, or free some memory."
        ) from exc


def _in_process(parcel: bytes, batch: Sequence[StoredDecision]) -> Replay:
    return _replayed(_gate_in(parcel), batch)


@lru_cache(maxsize=1)
def _gate_in(parcel: bytes) -> Gate:
    """The gate of a bundle that our own parent process packed; a process unpacks it once."""
    return Gate(pickle.loads(parcel))  # noqa: S301 - packed by `_shared` in this very program


def _replayed(gate: Gate, batch: Iterable[StoredDecision]) -> Replay:
    report = Replay()
    for row in batch:
        try:
            recorded = recorded_decision_from(row)
        except (ValueError, KeyError, TypeError):
            report.skipped += 1
            continue
        verdict = made_again(gate, recorded)
        if verdict is None:
            report.skipped += 1
        else:
            report.take(recorded, verdict)
    return report
