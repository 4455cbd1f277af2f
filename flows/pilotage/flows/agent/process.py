"""The key-less agent process: reads telemetry through the store's socket, forecasts, and files proposals at the API.

It is started by the controller with a scrubbed environment and refuses to run when a Prefect credential is
in it all the same: a planner that could write would make every promise about the gate worthless.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pilotage.flows.agent.tracing import Traces
from pilotage.flows.agent.training import TrainingSchedule, late_models, train_and_register, train_apart
from pilotage.flows.api.client import ApiClient
from pilotage.flows.config.credentials import PREFECT_KEYS
from pilotage.flows.config.paths import paths
from pilotage.flows.config.settings import Settings, load_settings
from pilotage.flows.notify.describe import proposal_for_log
from pilotage.planner.checkpoints import Checkpoints
from pilotage.planner.llm.protocol import LanguageModel
from pilotage.telemetry.errors import AdapterError, ConfigError, ModelError, PilotageError
from pilotage.telemetry.forecast.registry import ModelRegistry
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.harmless import harmless, harmless_lines, log_to_stderr
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.times import utc_now

if TYPE_CHECKING:
    from pilotage.planner.detect.rulebook import Rulebook
    from pilotage.telemetry.store.socket import ChangeListener

log = logging.getLogger("pilotage.agent")

NOTICEABLE = 0.005
"""A forecast that moved by less is not written down again."""

QUIET_TICKS = 5
"""After so many ticks without a change the planner looks all the same."""
BURST = 0.1
"""Seconds in which changes that come together are waited for."""


def refuse_keys() -> None:
    """Returns when the environment holds no Prefect credential. Raises ConfigError naming what it found."""
    present = [name for name in PREFECT_KEYS if os.environ.get(name)]
    if present:
        raise ConfigError(
            f"Starting the agent: its environment holds {', '.join(present)}. "
            "The agent must not be able to reach Prefect; unset them, or let `pilotage up` start it."
        )


def language_model(settings: Settings) -> LanguageModel | None:
    """The configured model, or None: then rules do the whole loop."""
    if not settings.llm.configured:
        return None
    from pilotage.planner.llm.budget import LlmBudget

    try:
        from pilotage.planner.llm.openai import OpenAIModel  # an extra; and openai costs about a second
    except ImportError as exc:
        log.error(
            "No language model, though one is configured: %s. Install it with `pip install 'pilotage[llm]'`.",
            exc,
        )
        return None
    try:
        book = LlmBudget(settings.paths.model_book, settings.llm.budget)
    except ModelError as exc:
        log.error("No language model, since its spending cannot be counted: %s", exc)
        return None
    return OpenAIModel(
        base_url=settings.llm.base_url,
        api_key=settings.llm.api_key.get_secret_value(),
        model=settings.llm.model,
        timeout=settings.llm.timeout.total_seconds(),
        max_tokens=settings.llm.max_tokens,
        calls_tools=settings.llm.calls_tools,
        book=book,
    )


def failure_rulebook(settings: Settings) -> Rulebook:
    """Return the failure rules: the shipped ones with the site's own around them.

    A file that cannot be read is told of, and the shipped rules go on alone: a fault in a table is no reason to be blind.
    """
    from pilotage.planner.detect.reasoning import EXAMPLES
    from pilotage.planner.detect.site_rules import FILE, load_rules, shadows_of  # start-up time: yaml

    path = settings.failure_rules or settings.paths.root / FILE
    if settings.failure_rules is None and not path.exists():
        return EXAMPLES
    try:
        rules = load_rules(path)
    except ConfigError as error:
        log.error("Failing runs are diagnosed by the shipped rules alone: %s", error)
        return EXAMPLES
    log.info("%d failure rules of %s are in force", len(rules.before) + len(rules.after), path)
    for shadow in shadows_of(rules):
        log.warning("Failure rule %s cannot decide: %s", shadow.rule_id, shadow.because)
    return rules.book()


async def run(
    settings: Settings,
    *,
    token: str,
    watch_from: datetime,
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
    store: Store | None = None,
    control_api: ApiClient | None = None,
    checkpoints: Checkpoints | None = None,
    model: LanguageModel | None = None,
) -> None:
    """Plans until `stop` is set. Faults of the store, the API or the model wait for the next turn.

    `store` and `control_api` are those of the state directory's sockets, `checkpoints` and `model` the configured ones,
    unless they are given.
    """
    from pilotage.planner.checkpoints import checkpoints_at
    from pilotage.planner.detect.failures import class_of_log
    from pilotage.planner.loop.planner import Planner
    from pilotage.telemetry import connect
    from pilotage.telemetry.forecast.lateness import starts
    from pilotage.telemetry.forecast.live import LiveForecaster
    from pilotage.telemetry.forecast.retry_live import LiveRetries
    from pilotage.telemetry.queries.runs import upcoming_runs, waiting_runs
    from pilotage.telemetry.store.socket import ChangeListener

    where = settings.paths
    given = store
    store = given or connect(where.root)
    control_api = control_api or ApiClient(where.api_socket, token)
    traces = Traces(settings)
    registry = ModelRegistry(where.forecast_models)
    forecaster = LiveForecaster(store, registry, clock=clock)
    retries = LiveRetries(store, registry.root, class_of_log, clock=clock)
    late_starts = LiveForecaster(store, late_models(registry), source=starts(), clock=clock)

    async def train() -> None:
        if given is None:
            await train_apart(where)
        else:
            await asyncio.to_thread(train_and_register, given, registry, clock())

    training = TrainingSchedule(registry, train, interval=settings.loop.train_interval, clock=clock)
    changes = None if given else ChangeListener(where.store_socket)
    async with Planner(
        store=store,
        forecaster=forecaster,
        control_api=control_api,
        model=model or language_model(settings),
        parameters=settings.planner,
        checkpoints=checkpoints
        or checkpoints_at(settings.agent_memory.get_secret_value(), where.checkpoints),
        since=watch_from,
        traces=traces.of_planner(control_api),
        clock=clock,
        book=failure_rulebook(settings),
        retries=retries,
        late_starts=late_starts,
    ) as planner:
        said: dict[str, Forecast] = {}
        forgetting = Forgetting(settings, clock)
        while not stop.is_set():
            now = clock()
            quiet = True
            try:
                await asyncio.to_thread(forecaster.follow, now)
                training.keep(forecaster.ended)
                await forgetting.keep()
                soon = await asyncio.to_thread(upcoming_runs, store, now, settings.loop.horizon)
                due = await asyncio.to_thread(waiting_runs, store, now)
                forecasts = await asyncio.to_thread(
                    forecaster.forecast, [run.run_id for run in (*soon, *due)]
                )
                news = [forecast for forecast in forecasts if _is_news(said.get(forecast.run_id), forecast)]
                if news:
                    await asyncio.to_thread(
                        control_api.call, "record_forecasts", forecasts=[_as_json(new) for new in news]
                    )
                said = {forecast.run_id: forecast for forecast in forecasts}
                for event in await planner.tick(now):
                    quiet = False
                    log.info("%s", in_words(event))
            except AdapterError as exc:
                log.warning("planning: %s", exc)
                quiet = False
            await _until_worth_a_look(changes, stop, settings.loop.tick.total_seconds(), quiet=quiet)
    await training.stop()
    if changes is not None:
        changes.close()
    await asyncio.to_thread(traces.stop)
    if given is None:
        store.close()


class Forgetting:
    """Deletes, once a day, the threads of the agent's memory that are past the age of conversations."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._life = settings.retention.conversations
        self._memory, self._paths = settings.agent_memory.get_secret_value(), settings.paths
        self._clock = clock
        self._next: datetime | None = None

    async def keep(self) -> int:
        """How many threads are gone; 0 when it is not due. Raises CheckpointError."""
        from pilotage.planner.checkpoints import checkpoints_at, forget_before

        now = self._clock()
        if not self._life or (self._next is not None and now < self._next):
            return 0
        self._next = now + timedelta(days=1)
        gone = 0
        for path in (self._paths.conversations, self._paths.checkpoints):
            if self._memory or path.exists():
                async with checkpoints_at(self._memory, path).opened() as saver:
                    gone += await forget_before(saver, now - self._life)
        return gone


async def _until_worth_a_look(
    changes: ChangeListener | None, stop: asyncio.Event, tick: float, *, quiet: bool
) -> None:
    """Returns when the store has changed or `stop` is set.

    Where nothing changes it is after `QUIET_TICKS` ticks, or after one when the last look was not a `quiet` one or
    nobody tells of changes. What depends on time alone (a run that is late, a hold that ends) is seen then. A burst of
    changes is one look.
    """
    stopping = asyncio.create_task(stop.wait())
    if changes is None:
        change = asyncio.create_task(asyncio.sleep(tick, result=True))
    else:
        change = asyncio.create_task(changes.next(QUIET_TICKS * tick if quiet else tick))
    try:
        await asyncio.wait({stopping, change}, return_when=asyncio.FIRST_COMPLETED)
        if changes is not None and not stop.is_set():
            await asyncio.wait({stopping}, timeout=min(BURST, tick))
    finally:
        for task in (stopping, change):
            task.cancel()
        await asyncio.gather(stopping, change, return_exceptions=True)


def in_words(happened: Mapping[str, Any]) -> str:
    """What became of one situation, as one line for the log. What runs wrote about themselves is made harmless."""
    said = f"{happened['incident_id']}"
    if happened.get("subject"):
        said += f" {happened['subject']}: {happened.get('failure_class') or 'unknown'}"
    asked = [_filed_in_words(proposal) for proposal in happened.get("filed") or ()]
    said += f"; {', '.join(asked) or 'nothing proposed'}"
    if happened.get("error"):
        said += f"; {happened['error']}"
    return harmless(said, 500)


def _filed_in_words(filed: Mapping[str, Any]) -> str:
    outcome = (filed.get("verdict") or {}).get("outcome") or filed.get("outcome") or "unjudged"
    return f"{proposal_for_log(filed)}: {outcome}"


def _is_news(before: Forecast | None, forecast: Forecast) -> bool:
    return (
        before is None or abs(before.p_fail - forecast.p_fail) > NOTICEABLE or before.muted != forecast.muted
    )


def _as_json(forecast: Forecast) -> dict[str, Any]:
    row = {**asdict(forecast), "made_at": forecast.made_at.isoformat()}
    # how it went is found out by the store
    return {name: value for name, value in row.items() if name not in ("failed", "ended")}


async def _main() -> None:
    settings = load_settings(state_dir=paths().root)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    watch_from = os.environ.get("PILOTAGE_WATCH_FROM")
    await run(
        settings,
        token=os.environ.get("PILOTAGE_AGENT_TOKEN", ""),
        watch_from=datetime.fromisoformat(watch_from)
        if watch_from
        else datetime.now(UTC) - timedelta(minutes=5),
        stop=stop,
    )


def main() -> int:
    """Exit code 0 after a clean stop, 2 when it may not or cannot start."""
    log_to_stderr(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        refuse_keys()
        asyncio.run(_main())
    except PilotageError as exc:
        print(harmless_lines(exc), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
