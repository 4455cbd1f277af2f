"""The planner at work: look for new trouble, think each one through, file what is proposed.

It reads the store and files at an API; it has no other way to act. One broken situation never stops the others,
and what could not be read or filed is tried again at the next tick: ids are derived, so twice is once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pilotage.planner.actions.types import ActionKind, action_as_json
from pilotage.planner.checkpoints import Checkpoints, checkpoint_fault
from pilotage.planner.detect.failures import diagnosis_of, incident_id
from pilotage.planner.detect.reasoning import EXAMPLES
from pilotage.planner.detect.registry import DETECTORS, DetectorSnapshot
from pilotage.planner.detect.rulebook import Rulebook
from pilotage.planner.findings import Cure, Finding
from pilotage.planner.llm.protocol import LanguageModel
from pilotage.planner.llm.tracing import TurnTracer, Untraced
from pilotage.planner.loop.allowance import Allowance
from pilotage.planner.parameters import PlaybookParameters
from pilotage.planner.proposals import ProposalApi
from pilotage.telemetry.errors import AdapterError
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecasts import Forecaster, RetryForecaster
from pilotage.telemetry.queries import fleet, heartbeats
from pilotage.telemetry.queries import runs as run_queries
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.remembered import RememberedStore

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

log = logging.getLogger(__name__)

OVERLAP = timedelta(hours=6)
"""How far behind the newest failure that was seen older ones are still looked for: backfill arrives late."""
FRESH = timedelta(minutes=10)
"""A half-done thought that is older is begun again: what it observed is stale."""
GRAPHS_AT_ONCE = 4
"""So that one slow answer of a model does not hold up everybody's retry."""
DECIDED = 0.87
"""From this confidence on a state's own words decide without its logs."""
GOVERNING_DUE = timedelta(minutes=1)
"""How long a failure is left whose deployment or pool is not in the store yet: what is collected seldom comes by then."""
PARENT_DUE = timedelta(seconds=20)
"""How long a failed child is left whose parent goes on: a parent that fails with it is tried again in its place."""
TRIES = 3
"""How often a situation is thought about that breaks the planner or that the API refuses for good."""
LOOK_AGAIN = timedelta(seconds=10)
"""Between two looks for signs of a held run's death."""
ASKED_AGAIN = 3
"""How often one failure is looked at again, after a remedy or after a question that lapsed."""
REMEMBERED = 20_000
"""Handled incidents that are remembered; far more than the overlap can bring back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One new situation, before it is thought about."""

    incident_id: str
    run_id: str = ""
    finding: Finding | None = None
    """Given by a detector; a failed run is diagnosed in the graph."""


class Planner:
    """The loop's thinking half. Use it as an async context manager, or call `aclose` at the end."""

    def __init__(
        self,
        *,
        store: Store,
        forecaster: Forecaster,
        control_api: ProposalApi,
        checkpoints: Checkpoints,
        parameters: PlaybookParameters | None = None,
        model: LanguageModel | None = None,
        since: datetime | None = None,
        traces: TurnTracer | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        book: Rulebook = EXAMPLES,
        retries: RetryForecaster | None = None,
        late_starts: Forecaster | None = None,
    ) -> None:
        self._store, self._forecaster, self._control_api, self._model = store, forecaster, control_api, model
        self._parameters = parameters or PlaybookParameters()
        self._checkpoints, self._clock = checkpoints, clock
        self._traces = traces or Untraced()
        self._since = since or clock()
        self._book, self._retries, self._late_starts = book, retries, late_starts
        self._handled: dict[str, None] = {}
        self._investigations = Allowance()
        self._held: dict[str, datetime] = {}
        self._broken: dict[str, int] = {}
        self._open = AsyncExitStack()
        self._graph: CompiledStateGraph[Any, Any, Any, Any] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the checkpoints; harmless when called twice."""
        self._graph = None
        await self._open.aclose()

    async def tick(self, now: datetime) -> list[dict[str, Any]]:
        """What happened: one entry for each new situation, with the API's answers under `filed`.

        An entry has `incident_id`, `subject`, `failure_class`, `found_by`, `rule_id`, `fingerprint`, `p_fail`,
        `playbook`, `alternatives`, `filed` and, when something failed, `error`. Raises CheckpointError.
        """
        try:
            return await self._tick(now)
        except Exception as error:
            if (fault := checkpoint_fault(error)) is not None:
                raise fault from error
            raise
        finally:
            await (
                self.aclose()
            )  # opened again when there is something new: a lost connection is lost for one tick

    async def _tick(self, now: datetime) -> list[dict[str, Any]]:
        try:
            permitted_kinds = await asyncio.to_thread(self._control_api.permitted_kinds)
        except AdapterError as error:
            log.warning("Planning waits for the API: %s", error)
            return []
        new = [t for t in await asyncio.to_thread(self._look, now) if t.incident_id not in self._handled]
        new = [trouble for trouble in new if not await self._settled_before(trouble.incident_id)]
        if not new:
            return []
        await self._compiled()
        self._investigations = Allowance()
        turn = asyncio.Semaphore(GRAPHS_AT_ONCE)
        thoughts = [asyncio.create_task(self._think(trouble, permitted_kinds, now, turn)) for trouble in new]
        try:
            return [await self._settle(t, thought) for t, thought in zip(new, thoughts, strict=True)]
        finally:
            for thought in thoughts:
                thought.cancel()
            await asyncio.gather(*thoughts, return_exceptions=True)

    # -- looking

    def _look(self, now: datetime) -> list[Detection]:
        """The troubles of this moment, in the order in which they are to be filed."""
        detections: list[Detection] = []
        snapshot = DetectorSnapshot(
            store=RememberedStore(self._store),
            forecaster=self._forecaster,
            parameters=self._parameters,
            now=now,
            late_starts=self._late_starts,
        )
        # what has failed is looked at before what may
        with _seeing("failed"):
            detections += self._failed(now)
        looks = [(look.__name__, partial(look, snapshot)) for look in DETECTORS]
        for name, look in looks:
            with _seeing(name):
                detections += [_detected(finding) for finding in look()]
        return detections

    def _failed(self, now: datetime) -> Iterable[Detection]:
        """Failed runs, those first whose next attempt is likeliest to succeed."""
        failures = run_queries.failures_since(self._store, self._since)
        ends = [run.ended for run in failures if run.ended is not None and run.ended <= now]
        if ends:
            self._since = max(self._since, max(ends) - OVERLAP)
        episodes = self._episodes(failures)
        new = [
            (run, trouble)
            for run in failures
            if (
                trouble := Detection(
                    incident_id=incident_id(f"run:{run.run_id}", episodes.get(run.run_id, run.state_id)),
                    run_id=run.run_id,
                )
            )
            and trouble.incident_id not in self._handled
            and not self._rows_are_due(run, now)
        ]
        odds = self._odds([run.run_id for run, _ in new])
        # a run before the run that started it: a parent's trouble is mostly its child's
        new.sort(key=lambda pair: (pair[0].parent_task_run_id is None, odds.get(pair[0].run_id, 0.5)))
        return [trouble for _, trouble in new]

    def _episodes(self, failures: Sequence[RunFact]) -> dict[str, str]:
        """By run, which look at its failure is due: the first, or one more after a remedy ended or a question lapsed.

        What lapsed (nobody answered, the mode changed, Prefect was away) is proposed again while its trouble stands,
        `ASKED_AGAIN` times at most; what a person rejected or waived is not.
        """
        if not failures:
            return {}
        ids = [run.run_id for run in failures]
        sql = (
            "SELECT incident_id, step, action, json_extract_string(detail, '$.told') AS told, "
            "contains(detail, '!diagnosed-anew') AS anew FROM decisions "
            "WHERE run_id IN (SELECT unnest(?::VARCHAR[])) AND step IN "
            "('expired', 'rejected', 'verified', 'refused', 'judged', 'denied')"
        )
        steps: dict[str, list[tuple[str, str, str]]] = {}
        for row in self._store.rows(sql, [ids]):
            steps.setdefault(row["incident_id"], []).append(
                ("diagnosed anew" if row["anew"] else row["step"], row["action"], str(row["told"] or ""))
            )
        due = {}
        for run in failures:
            episode = run.state_id
            for _ in range(ASKED_AGAIN):
                then = steps.get(incident_id(f"run:{run.run_id}", episode), [])
                if (after := next_episode(then)) == "":
                    break
                episode = f"{episode}#{after}"
            due[run.run_id] = episode
        return due

    def _rows_are_due(self, run: RunFact, now: datetime) -> bool:
        """Return whether rows may still come that decide what is wrong with a run, or whether it is dead at all.

        What failed before its deployment and pool are known waits for them, `GOVERNING_DUE` at most.

        Where the state's own words decide, none is waited for; where they leave it open, and where a crash would be
        retried, `evidence_wait` after the end. A crash that may still be alive is held until two signs prove its death,
        at most for `death_wait`.
        """
        if run.ended is None or now < self._held.get(run.state_id, now):
            return run.ended is not None
        if now - run.ended < GOVERNING_DUE and (unknown := self._unknown(run)):
            return self._wait(run, f"what is known of its {unknown}", now, run.ended + GOVERNING_DUE)
        if (
            now - run.ended < PARENT_DUE
            and (parent := fleet.parent_of(self._store, run))
            and parent.ended is None
        ):
            return self._wait(run, "what its parent makes of it", now, run.ended + PARENT_DUE)
        made = diagnosis_of(run, (), self._book)[0]
        crashed = run.state_type is StateType.CRASHED
        if now - run.ended < self._parameters.evidence_wait:
            if made.confidence >= DECIDED and not (crashed and made.cure in (Cure.SECONDS, Cure.MINUTES)):
                return False
            until = run.ended + self._parameters.evidence_wait
            return self._wait(run, "its log rows", until, until)
        if not crashed or now - run.ended >= self._parameters.death_wait:
            return False
        logs = run_queries.logs_of(self._store, run.run_id, self._parameters.logs_read)
        if diagnosis_of(run, logs, self._book)[0].cure is not Cure.DEATH:
            return False
        signs = heartbeats.signs_of_death(self._store, run, now)
        if signs.proven or not signs.may_come:
            return False
        return self._wait(
            run, "signs of its death", now + LOOK_AGAIN, run.ended + self._parameters.death_wait
        )

    def _unknown(self, run: RunFact) -> str:
        """What governs a run and is not in the store: `deployment`, `pool`, or empty."""
        deployment = run_queries.deployment_of(self._store, run.run_id) if run.deployment_id else None
        if run.deployment_id and deployment is None:
            return "deployment"
        pool = run.pool or (deployment.pool if deployment else None)
        return "pool" if pool and fleet.pool_of(self._store, run, deployment) is None else ""

    def _wait(self, run: RunFact, what: str, again: datetime, latest: datetime) -> bool:
        if run.state_id not in self._held:
            log.info(
                "Diagnosing run %s waits for %s, until %s at the latest", run.run_id, what, latest.isoformat()
            )
        self._held[run.state_id] = again
        while len(self._held) > REMEMBERED:
            del self._held[next(iter(self._held))]
        return True

    def _odds(self, run_ids: list[str]) -> dict[str, float]:
        """The chances of failing that give the order; without a forecaster the order does not matter."""
        try:
            forecasts = self._forecaster.forecast(run_ids) if run_ids else ()
        except Exception as error:
            log.warning("Ordering %d failures without a forecast: %s", len(run_ids), error)
            return {}
        return {forecast.run_id: float(forecast.p_fail) for forecast in forecasts}

    # -- thinking

    async def _compiled(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        if self._graph is None:
            from pilotage.planner.loop.graph import build  # the graph library takes 0.6 s to import

            self._graph = build(await self._open.enter_async_context(self._checkpoints.opened()))
        return self._graph

    async def _think(
        self,
        trouble: Detection,
        permitted_kinds: tuple[ActionKind, ...],
        now: datetime,
        turn: asyncio.Semaphore,
    ) -> dict[str, Any]:
        """The finished state of the graph for one trouble; a thought that broke off lately is taken up again."""
        async with turn:
            from pilotage.planner.loop.graph import FINDING, GraphDeps

            graph = await self._compiled()
            config: Any = {"configurable": {"thread_id": trouble.incident_id}}
            graph_deps = GraphDeps(
                store=self._store,
                forecaster=self._forecaster,
                parameters=self._parameters,
                clock=lambda: now,
                permitted_kinds=permitted_kinds,
                model=self._model,
                book=self._book,
                retries=self._retries,
                investigations=self._investigations,
            )
            begun = await graph.aget_state(config)
            made_at = datetime.fromisoformat(begun.created_at) if begun.created_at else None
            fresh = made_at is not None and abs(self._clock() - made_at) < FRESH
            if fresh and not begun.next and "proposals" in begun.values:
                # thought through, not wholly filed: the same text again, or the ledger takes it for another's
                return dict(begun.values)
            if fresh and begun.next:
                start = None
            else:
                given = FINDING.dump_python(trouble.finding, mode="json") if trouble.finding else None
                start = {"run_id": trouble.run_id, "finding": given}
            model = self._model.name if self._model else ""
            with self._traces.turn(trouble.incident_id, model) as span, span.inside():
                state: dict[str, Any] = await graph.ainvoke(
                    start, config, context=graph_deps, durability="sync"
                )
            return state

    # -- filing

    async def _settle(self, trouble: Detection, thought: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
        """What became of one trouble. It counts as handled when all its proposals are filed."""
        happened: dict[str, Any] = {"incident_id": trouble.incident_id, "filed": []}
        try:
            state = await thought
            happened |= _told(state)
            await self._file(trouble.incident_id, state, happened["filed"])
        except Exception as defect:  # a defect of ours in one situation must not stop the others
            error = checkpoint_fault(defect) or defect
            if isinstance(error, AdapterError):
                log.warning("Incident %s waits for the next tick: %s", trouble.incident_id, error)
                happened["error"] = str(error)
            else:
                log.exception("Incident %s could not be thought through", trouble.incident_id)
                happened["error"] = f"{type(error).__name__}: {error}"
            if not (isinstance(error, AdapterError) and error.transient):
                self._count_try(trouble.incident_id)
        else:
            self._remember(trouble.incident_id)
            await self._forget_graph_state(trouble.incident_id)
        return happened

    async def _file(self, incident: str, state: dict[str, Any], filed: list[dict[str, Any]]) -> None:
        from pilotage.planner.loop.graph import proposals_in

        proposals = proposals_in(state)
        known = await asyncio.to_thread(self._filed_before, incident) if proposals else frozenset()
        for proposal, case in proposals:
            detail = {"proposal_id": proposal.id, "action": action_as_json(proposal.action)}
            if proposal.id in known:
                filed.append(detail | {"outcome": "filed before"})
                continue
            filed.append(detail | await asyncio.to_thread(self._control_api.file, proposal, case))

    def _filed_before(self, incident: str) -> frozenset[str]:
        """An incident's proposals in the ledger's mirror: a restarted planner thinks of them again."""
        sql = "SELECT DISTINCT proposal_id FROM decisions WHERE incident_id = ?"
        return frozenset(row["proposal_id"] for row in self._store.rows(sql, [incident]))

    async def _settled_before(self, incident: str) -> bool:
        """Whether an earlier planner filed all it wanted: proposals are on record and no half-done thought is.

        What was decided then, by policy or by a person, stands; thinking again would only find another way to ask.
        """
        try:
            if not await asyncio.to_thread(self._filed_before, incident):
                return False
        except AdapterError as error:
            log.warning("Looking for what was filed on %s: %s", incident, error)
            return False
        graph = await self._compiled()
        thought = await graph.aget_state({"configurable": {"thread_id": incident}})
        if thought.created_at is not None:
            return False
        self._remember(incident)
        return True

    def _count_try(self, incident: str) -> None:
        """Gives an incident up after its last try: what failed for good would fail at every tick."""
        self._broken[incident] = self._broken.get(incident, 0) + 1
        if self._broken[incident] >= TRIES:
            self._remember(incident)

    def _remember(self, incident: str) -> None:
        self._broken.pop(incident, None)
        self._handled[incident] = None
        while len(self._handled) > REMEMBERED:
            del self._handled[next(iter(self._handled))]

    async def _forget_graph_state(self, incident: str) -> None:
        """Checkpoints hold half-done thinking only; what is filed is in the ledger."""
        graph = await self._compiled()
        try:
            await graph.checkpointer.adelete_thread(incident)  # type: ignore[union-attr]
        except Exception:
            log.warning("The checkpoints of %s stay on file", incident, exc_info=True)


def next_episode(steps: Sequence[tuple[str, str, str]]) -> str:
    """Return why a failure is looked at again: `diagnosed-anew`, `remedied`, `lapsed`; empty when what was decided stands.

    `steps` are `(step, action, words)` of what was proposed about it.
    """
    if any(step == "rejected" for step, _, _ in steps):
        return ""
    if any(step == "diagnosed anew" for step, _, _ in steps):
        return "diagnosed-anew"
    if any(step == "verified" and action == "launch_remediation" for step, action, _ in steps):
        return "remedied"
    if any(step == "expired" and "its run is" not in words for step, _, words in steps):
        return "lapsed"
    return ""


@contextmanager
def _seeing(name: str) -> Iterator[None]:
    """One look: its faults are told and do not blind the others."""
    try:
        yield
    except AdapterError as error:
        log.warning("Looking for trouble, %s: %s", name, error)
    except Exception:
        log.exception("Looking for trouble, %s", name)


def _detected(finding: Finding) -> Detection:
    kind, _, name = finding.subject.partition(":")
    return Detection(incident_id=finding.incident_id, run_id=name if kind == "run" else "", finding=finding)


def _told(state: dict[str, Any]) -> dict[str, Any]:
    finding = state.get("finding") or {}
    kept = {key: finding.get(key, "") for key in ("subject", "failure_class", "rule_id", "fingerprint")}
    return kept | {
        "found_by": finding.get("by", ""),
        "p_fail": (state.get("forecast") or {}).get("p_fail"),
        "playbook": state.get("playbook", ""),
        "alternatives": state.get("alternatives", []),
    }
