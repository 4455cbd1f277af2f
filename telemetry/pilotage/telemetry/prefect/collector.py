"""What happens in Prefect, kept in the store: the stream says that something happened, the API says what.

Prefect's event stream drops events silently (256 waiting for a reader at most, and some at a server's
restart), so it is only a hint. The truth is read by REST: the runs that it names at once, all runs that have not
ended from time to time, the rest from an overlapping watermark; everything that comes twice is kept once. While the
stream stands and is slow enough to have dropped nothing, that is seldom; without it, or after a burst, it is every
few seconds. A run that ended badly is read again with its logs before anybody is told of it, and its late lines are
fetched a little later; of one that completed the warnings come with the sweep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from pilotage.telemetry.errors import AdapterError, OrchestratorError
from pilotage.telemetry.facts import TERMINAL, RunFact, StateType
from pilotage.telemetry.prefect.answers import AnswerTimes
from pilotage.telemetry.prefect.http import FLOW_RUNS, PrefectReader, events_as_they_happen
from pilotage.telemetry.prefect.models import event_fact, moment
from pilotage.telemetry.prefect.pace import Pace
from pilotage.telemetry.prefect.set_aside import SetAside, Unreadable
from pilotage.telemetry.prefect.site import SiteSync
from pilotage.telemetry.prefect.sync import RunSync
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.schema import facts_from_rows
from pilotage.telemetry.times import utc_now

logger = logging.getLogger("pilotage.telemetry")

WATERMARK = "prefect"
OVERLAP = timedelta(seconds=15)
"""How far behind the watermark is read again: Prefect writes events up to 5 s after they occur."""
GAP_OVERLAP = timedelta(minutes=5)
"""The same after a start or a failure: clients that could not deliver do it late."""
FIRST_LOOK = timedelta(days=7)
"""How far back a new store reads runs."""
FIRST_EVENTS = timedelta(days=1)
"""How far back a new store reads events, logs and task runs; Prefect gives about a thousand events a second."""
LOG_LOOK = timedelta(hours=1)
"""How long after their end the last lines of runs are fetched one run at a time; warnings always are."""
NEAR = timedelta(minutes=15)
"""Scheduled runs that are due sooner are read at every poll; those further off at every sweep."""
QUIET_POLL = timedelta(seconds=20)
"""Between two polls while the stream stands: they look for what it dropped, and for what it never tells (a deleted run)."""
QUIET_SWEEP = timedelta(seconds=60)
"""The same for sweeps."""
BURST = 100
"""Events within a moment, after which some may have been dropped: Prefect keeps 256 for a reader."""
LATE_LOGS = (1.5, 4.0, 10.0)
"""Seconds after a run's end at which its logs are read again: clients send them in batches, every 2 s."""
STANDS_STILL = timedelta(minutes=2)
"""A watermark that is older is told of: a sweep takes seconds."""
BACKOFF = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between attempts; the last one for as long as it takes."""

OnChange = Callable[[frozenset[str]], None]


class PrefectCollector:
    """Fills the store from Prefect until told to stop."""

    def __init__(
        self,
        store: DuckDBStore,
        *,
        on_change: OnChange | None = None,
        poll: timedelta = timedelta(seconds=2),
        interval: timedelta = timedelta(seconds=5),
        clock: Callable[[], datetime] = utc_now,
        reader: Callable[[], PrefectReader] = PrefectReader,
        events: Callable[[Callable[[], None]], AsyncIterator[dict[str, Any]]] = events_as_they_happen,
        pace: Pace | None = None,
    ) -> None:
        """`on_change` gets the ids of runs whose state or logs are new; `poll` and `interval` are pauses.

        `reader` opens Prefect and `events` is its event stream, by default those of the active profile.
        `pace` is that of all who ask this Prefect.
        """
        self._store = store
        self._clock = clock
        self._reader, self._events = reader, events
        self._copy = RunSync(store)
        self._site = SiteSync(store, self._copy, clock=clock)
        self.answers = AnswerTimes()
        """How quickly Prefect answered, and how often it was asked."""
        self.pace = pace or Pace()
        self._set_aside = SetAside(clock)
        self._site_hinted = asyncio.Event()
        self._on_change = on_change
        self._poll = poll
        self._interval = interval
        self._hints: set[str] = set()
        self._hinted = asyncio.Event()
        self._doubts = {"poll": asyncio.Event(), "sweep": asyncio.Event()}
        """Set when the stream may have missed something: what waits looks at once."""
        self._seen: dict[str, tuple[datetime, str]] = {}
        self._live: dict[str, RunFact] = {}
        self._later: set[asyncio.Task[None]] = set()
        self._ended_since = self._clock()
        self.connected = False
        """Whether the event stream stands."""
        self.last_event: datetime | None = None
        """When the newest event that was received occurred."""
        self.last_error = ""
        """What went wrong last, or empty when nothing is wrong now."""
        self.watermark: datetime | None = None
        """Up to when everything has been read; None until a first reading has got that far."""

    @property
    def set_aside(self) -> tuple[Unreadable, ...]:
        """The rows that Prefect has and cannot send; all others are collected."""
        return self._set_aside.rows()

    def stands_still(self, now: datetime) -> str:
        """Why what is known is older than it ought to be, in words; empty while collecting keeps up."""
        if self.watermark is None or now - self.watermark <= STANDS_STILL:
            return ""
        why = f": {self.last_error}" if self.last_error else ""
        return f"everything is read up to {self.watermark.isoformat(timespec='seconds')} and no further{why}"

    async def run(self, stop: asyncio.Event) -> None:
        """Collects until `stop` is set.

        Waits for a server that cannot be reached; raises OrchestratorError when it refuses us or is too old.
        """
        await self._first_contact(stop)
        if stop.is_set():
            return
        async with self._timed_reader() as reader, self._timed_reader() as site_reader:
            loops = [
                asyncio.create_task(loop, name=f"collector-{name}")
                for name, loop in (
                    ("stream", self._persist(self._listen)),
                    ("hints", self._persist(lambda: self._follow_hints(reader))),
                    ("poll", self._persist(lambda: self._keep_polling(reader))),
                    ("site", self._persist(lambda: self._keep_site(site_reader))),
                    ("sweep", self._persist(lambda: self._keep_sweeping(reader))),
                )
            ]
            stopping = asyncio.create_task(stop.wait())
            try:
                done, _ = await asyncio.wait([*loops, stopping], return_when=asyncio.FIRST_COMPLETED)
                for ended in done - {stopping}:
                    ended.result()  # a loop ends only by a fault of ours: let it be seen
            finally:
                tasks = [*loops, stopping, *self._later]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self.connected = False

    async def backfill(self) -> None:
        """Reads what happened since the watermark; when there is none, a week of runs and a day of the rest."""
        mark = await asyncio.to_thread(self._store.watermark, WATERMARK)
        await self._once(mark and mark - GAP_OVERLAP)

    async def reconcile(self, since: datetime) -> None:
        """Reads everything that happened since a moment, and moves the watermark to now."""
        await self._once(since)

    async def _once(self, since: datetime | None) -> None:
        async with self._timed_reader() as reader:
            await self._site.everything(reader)
            await self._reconcile(reader, since)
            await self._site.snapshot(self._live.values())

    def _timed_reader(self) -> PrefectReader:
        """A reader that notes how quickly it is answered, and what it is not sent."""
        reader = self._reader()
        reader.answers, reader.set_aside, reader.pace = self.answers, self._set_aside, self.pace
        return reader

    async def _first_contact(self, stop: asyncio.Event) -> None:
        attempt = 0
        while not stop.is_set():
            try:
                async with self._reader() as reader:
                    version = await reader.version()
                logger.info("Collecting from Prefect %s at %s", version.version, version.api_url)
                return
            except AdapterError as exc:
                if not exc.transient:
                    raise
                attempt = await self._wait_after(exc, attempt, stop)

    async def _wait_after(self, exc: AdapterError, attempt: int, stop: asyncio.Event | None = None) -> int:
        """The number of the next attempt, after the pause that this one has earned."""
        pause = BACKOFF[min(attempt, len(BACKOFF) - 1)]
        if self.last_error != str(exc):
            logger.warning("%s Next attempt in %g s.", exc, pause)
        self.last_error = str(exc)
        if stop is None:
            await asyncio.sleep(pause)
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        return attempt + 1

    async def _persist(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Never returns: an outside failure ends one attempt, not the collecting."""
        attempt = 0
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await loop()
            except AdapterError as exc:
                if asyncio.get_running_loop().time() - started > BACKOFF[-1]:
                    attempt = 0
                attempt = await self._wait_after(exc, attempt)

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """Around what proves, when it succeeds, that nothing is wrong any more."""
        before = self.last_error
        yield
        if before and self.last_error == before:
            logger.info("Prefect answers again.")
            self.last_error = ""

    async def _listen(self) -> None:
        """Stores events as they come in; ends when the connection does."""
        batch: list[dict[str, Any]] = []
        wake = asyncio.Event()

        def connected() -> None:
            self.connected = True
            self._doubt()  # what happened before it stood was not told

        async def write() -> None:
            while True:
                await wake.wait()
                wake.clear()
                taken, batch[:] = batch[:], []
                await self._take_events(taken)
                await asyncio.sleep(0.1)  # a burst becomes one batch

        writer = asyncio.create_task(write())
        try:
            async for event in self._events(connected):
                batch.append(event)
                wake.set()
                if writer.done():
                    writer.result()
        finally:
            self.connected = False
            self._doubt()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        raise OrchestratorError(
            "Listening to Prefect's event stream: it ended. It is opened again.", transient=True
        )

    async def _take_events(self, raw: Iterable[Mapping[str, Any]]) -> int:
        """How many events were new; the runs that they are about are read next."""
        facts = [event_fact(event) for event in raw]
        if not facts:
            return 0
        if len(facts) >= BURST:
            self._doubt()
        new = await asyncio.to_thread(self._store.add_events, facts)
        newest = max(fact.occurred for fact in facts)
        self.last_event = max(newest, self.last_event or newest)
        if new and self._site.hint((fact.name, fact.occurred) for fact in facts):
            self._site_hinted.set()
        if new:
            hints = {fact.run_id for fact in facts if fact.run_id and "heartbeat" not in fact.name}
            self._hints |= hints
            self._hinted.set()
        return new

    def _doubt(self) -> None:
        for waiting in self._doubts.values():
            waiting.set()

    async def _rest(self, loop: str, pause: timedelta, quiet: timedelta) -> None:
        """Sleep for `pause`, and up to `quiet` while the stream stands and there is no doubt about it."""
        doubt = self._doubts[loop]
        await asyncio.sleep(pause.total_seconds())
        if self.connected and quiet > pause:
            with suppress(TimeoutError):
                await asyncio.wait_for(doubt.wait(), (quiet - pause).total_seconds())
        doubt.clear()

    async def _follow_hints(self, reader: PrefectReader) -> None:
        while True:
            await self._hinted.wait()
            await asyncio.sleep(0.05)  # one run's events come in threes
            self._hinted.clear()
            hints, self._hints = sorted(self._hints), set()
            try:
                async with self._working():
                    await self._absorb(reader, await reader.by_id("/flow_runs/filter", "flow_runs", hints))
            except AdapterError:
                self._hints |= set(hints)
                self._hinted.set()
                raise

    async def _keep_polling(self, reader: PrefectReader) -> None:
        await self._remember_live()
        while True:
            async with self._working():
                await self._poll_runs(reader, horizon=NEAR)
                if self.connected:  # otherwise the sweep reads them every few seconds
                    now = self._clock()
                    async for events in reader.events(now - QUIET_POLL - OVERLAP, now):
                        await self._take_events(events)
            await self._rest("poll", self._poll, QUIET_POLL)

    async def _keep_sweeping(self, reader: PrefectReader) -> None:
        overlap = GAP_OVERLAP
        while True:
            mark = await asyncio.to_thread(self._store.watermark, WATERMARK)
            self.watermark = mark
            async with self._working():
                await self._reconcile(reader, mark and mark - overlap)
            overlap = OVERLAP
            await self._rest("sweep", self._interval, QUIET_SWEEP)

    async def _remember_live(self) -> None:
        ended = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
        sql = f"SELECT * FROM runs WHERE state_type NOT IN ({ended})"  # noqa: S608
        rows = await asyncio.to_thread(self._store.rows, sql)
        for run in facts_from_rows(RunFact, rows):
            self._live.setdefault(run.run_id, run)

    async def _keep_site(self, reader: PrefectReader) -> None:
        async with self._working():
            await self._site.everything(reader)
        while True:
            async with self._working():
                await self._site.refresh(reader)
            await self._site.snapshot(self._live.values())
            self._site_hinted.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._site_hinted.wait(), self._interval.total_seconds())
                await asyncio.sleep(0.2)  # what changes together is told of together

    async def _reconcile(self, reader: PrefectReader, since: datetime | None) -> None:
        """Runs first, events last: the events are many, and the watermark moves along with them."""
        now = self._clock()
        if not self._live:
            await self._remember_live()
        await self._poll_runs(reader, horizon=None, ended_since=since or now - FIRST_LOOK)
        rest = since or now - FIRST_EVENTS
        await self._copy.logs(reader, {"timestamp": {"after_": rest.isoformat()}, "level": {"ge_": 30}})
        # servers before 3.6.29 cannot be asked for the task runs that ended since then
        await self._copy.task_runs(reader, {"task_runs": {"start_time": {"after_": rest.isoformat()}}})
        await self._copy.task_runs(reader, {"flow_runs": {"end_time": {"after_": rest.isoformat()}}})
        pages = 0
        async for events in reader.events(rest, now):
            await self._take_events(events)
            pages += 1
            if pages % 100 == 0:
                await self._mark(moment(events[-1]["occurred"]) or rest)
        await self._mark(now)

    async def _mark(self, until: datetime) -> None:
        await asyncio.to_thread(self._store.set_watermark, WATERMARK, until)
        self.watermark = until

    async def _poll_runs(
        self, reader: PrefectReader, *, horizon: timedelta | None, ended_since: datetime | None = None
    ) -> None:
        """Reads the runs that have not ended, those that just did, and those that have gone from the list."""
        now = self._clock()
        near = {"next_scheduled_start_time": {"before_": (now + horizon).isoformat()}} if horizon else {}
        since = (ended_since or self._ended_since) - timedelta(seconds=15)
        before = set(self._live)
        ids: set[str] = set()
        for wanted in (
            {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING", "PAUSED"]}}},
            {"state": {"type": {"any_": ["SCHEDULED"]}}, **near},
            {"end_time": {"after_": since.isoformat()}},
        ):
            async for rows in reader.pages("/flow_runs/filter", {"flow_runs": wanted}, sort="ID_DESC"):
                ids |= {str(row["id"]) for row in rows}
                await self._absorb(reader, rows)
        aside = set(self._set_aside.ids(FLOW_RUNS))
        gone = [run_id for run_id in before - ids - aside if self._ought_to_be_listed(run_id, now, horizon)]
        gone += self._set_aside.due(FLOW_RUNS)
        if gone:
            rows = await reader.by_id("/flow_runs/filter", "flow_runs", gone)
            await self._absorb(reader, rows)
            known = {str(row["id"]) for row in rows} | set(self._set_aside.ids(FLOW_RUNS))
            await self._forget(sorted(set(gone) - known))
        self._ended_since = now

    def _ought_to_be_listed(self, run_id: str, now: datetime, horizon: timedelta | None) -> bool:
        run = self._live.get(run_id)
        if run is None:
            return False
        return horizon is None or run.next_start is None or run.next_start <= now + horizon

    async def _forget(self, run_ids: list[str]) -> None:
        """Drops runs that Prefect deleted, as it does with the scheduled runs of a paused deployment."""
        if run_ids:
            for run_id in run_ids:
                self._live.pop(run_id, None)
                self._seen.pop(run_id, None)
            await asyncio.to_thread(self._store.forget_runs, run_ids)
            self._tell(run_ids)

    async def _absorb(self, reader: PrefectReader, rows: list[dict[str, Any]]) -> None:
        """Stores what is new of these flow runs, with the logs of those that ended, and says which."""
        facts = await self._copy.run_facts(reader, rows)
        new = [fact for fact in facts if self._is_news(fact)]
        if not new:
            return
        await asyncio.to_thread(self._store.merge_runs, new)
        now = self._clock()
        ended = {
            fact.run_id: fact.ended or now
            for fact in new
            if fact.state_type in TERMINAL and fact.state_type is not StateType.COMPLETED
        }
        fresh = [run_id for run_id, at in ended.items() if at > now - LOG_LOOK]
        for run_id in fresh:
            await self._copy.run_logs(reader, run_id)
        if fresh:
            await self._copy.task_runs(reader, {"flow_runs": {"id": {"any_": fresh}}})
        for fact in new:  # only now: a failure on the way here leaves it news
            if fact.run_id in self._seen and self._seen[fact.run_id][0] > fact.updated:
                continue  # another reader was faster
            self._seen[fact.run_id] = (fact.updated, fact.state_id)
            if fact.state_type in TERMINAL:
                self._live.pop(fact.run_id, None)
            else:
                self._live[fact.run_id] = fact
        self._tell(fact.run_id for fact in new)
        for run_id, at in ended.items():
            if at > now - timedelta(minutes=1):
                self._soon(self._read_late_logs(reader, run_id))
        self._trim()

    def _is_news(self, fact: RunFact) -> bool:
        known = self._seen.get(fact.run_id)
        return known is None or (fact.updated >= known[0] and (fact.updated, fact.state_id) != known)

    def _trim(self) -> None:
        """Forgets which ended runs it has seen, oldest first: the store knows them."""
        if len(self._seen) > 50_000:
            for run_id in [run_id for run_id in self._seen if run_id not in self._live][:25_000]:
                del self._seen[run_id]

    def _tell(self, run_ids: Iterable[str]) -> None:
        changed = frozenset(run_ids)
        if self._on_change is not None and changed:
            try:
                self._on_change(changed)
            except Exception:
                logger.exception("Telling of %d changed runs failed; collecting goes on.", len(changed))

    def _soon(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _read_late_logs(self, reader: PrefectReader, run_id: str) -> None:
        waited = 0.0
        for pause in LATE_LOGS:
            await asyncio.sleep(pause - waited)
            waited = pause
            try:
                if await self._copy.run_logs(reader, run_id):
                    self._tell([run_id])
                # Prefect writes task runs after their flow run has ended
                await self._copy.task_runs(reader, {"flow_runs": {"id": {"any_": [run_id]}}})
            except AdapterError as exc:
                logger.debug("Late logs of run %s: %s", run_id, exc)
