"""Turns every lever once on a real server of each supported Prefect version, and shows what came of it.

`python -m tests.compat.matrix [VERSION…]` starts each server in an environment of its own, prints a table, writes it to
`.bench/compat.json`, and, when all versions were asked, into `docs/compatibility.md`. It ends with 1 if one failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import prefect.context
from tests.compat.servers import OtherPrefect
from tests.compat.versions import VERSIONS
from tests.conftest import PrefectServer
from tests.flows.lever_targets import TARGETS, LeverTargets, Target

from pilotage.flows.execution.receipts import Delivery, Effect, Judgement
from pilotage.flows.levers import build_levers
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.prefect.collector import PrefectCollector
from pilotage.telemetry.prefect.http import check_server
from pilotage.telemetry.prefect.servers import kinds_not_offered
from pilotage.telemetry.store.duckdb import DuckDBStore

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / ".bench" / "compat.json"
PAGE = ROOT / "docs" / "compatibility.md"
START, END = "<!-- table of `make compat` -->", "<!-- end of table -->"
CORE = ("retry_run", "resize_run", "reschedule_run", "cancel_run", "cancel_run, running", "notify_owner")
"""What is promised of every version; the table has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One lever on one version."""

    version: str
    action: str
    outcome: str
    """`done`, or what went wrong."""


async def _executed(api: PrefectApi, target: Target) -> str:
    async def worker_has_released(run_id: str, since: datetime) -> bool:
        return True  # no worker serves the pool, so nobody holds a run

    lever = build_levers(worker_has_released=worker_has_released, notifier=Notifier(api=api), api=api)[
        target.action.kind
    ]
    idempotency_key = str(uuid4())
    before = await target.look(api, idempotency_key) if target.action.kind != "notify_owner" else None
    delivery: Delivery = await lever.execute(
        target.action,
        idempotency_key=idempotency_key,
        expected_state_id=target.expected_state_id,
        message="compatibility",
    )
    if delivery.effect is not Effect.DONE:
        return f"{delivery.effect.value}: {delivery.reason}"
    if await target.look(api, idempotency_key) == before:
        return "nothing changed"
    again = await lever.execute(
        target.action,
        idempotency_key=idempotency_key,
        expected_state_id=target.expected_state_id,
        message="compatibility",
    )
    if again.effect is Effect.DONE:
        return "done twice under one key"
    check = await lever.verify(target.action, delivery, idempotency_key=idempotency_key)
    return "done" if check.judgement is not Judgement.FAILED else f"not verified: {check.detail}"


def _turned(targets: LeverTargets, name: str) -> str:
    async def work(api: PrefectApi) -> str:
        return await _executed(api, await TARGETS[name](targets, api))

    try:
        return targets.ask(work)
    except OrchestratorError as error:
        return str(error)


async def _collected(folder: Path) -> str:
    found = await check_server()
    store = DuckDBStore(folder / "telemetry.duckdb")
    try:
        await PrefectCollector(store).backfill()
        counts = [
            store.rows("SELECT count(*) AS n FROM runs")[0]["n"],
            store.rows("SELECT count(*) AS n FROM deployments")[0]["n"],
        ]
    finally:
        store.close()
    return "done" if found.version and all(counts) else f"rows of runs and deployments: {counts}"


def _read(folder: Path) -> str:
    try:
        return asyncio.run(_collected(folder))
    except OrchestratorError as error:
        return str(error)


def trials_on(version: str, names: Sequence[str], home: Path) -> list[Trial]:
    """Return what came of each lever on a fresh server of this version, and of reading it."""
    withheld = kinds_not_offered(version)
    with OtherPrefect(home, version) as server:
        os.environ.update(server.client_env)
        prefect.context.refresh_global_settings_context()
        targets = LeverTargets(
            server=PrefectServer(
                api_url=server.api_url,
                ui_url=server.ui_url,
                auth_string=server.auth_string,
                env=server.env,
                embedded=server,
            )
        )
        targets.open()
        offered = [name for name in names if name.partition(",")[0] not in withheld]
        told = [Trial(version=version, action=name, outcome=_turned(targets, name)) for name in offered]
        told.append(Trial(version=version, action="collect", outcome=asyncio.run(_collected(home))))
    return told


def table_of(trials: Sequence[Trial]) -> str:
    """Return the Markdown table: one row an action, one column a version."""
    versions = list(dict.fromkeys(trial.version for trial in trials))
    outcomes = {(trial.action, trial.version): trial.outcome for trial in trials}
    lines = ["| action | " + " | ".join(versions) + " |", "|---" * (len(versions) + 1) + "|"]
    for action in dict.fromkeys(trial.action for trial in trials):
        cells = [outcomes.get((action, version)) or _absent(action, version) for version in versions]
        lines.append(f"| {action} | " + " | ".join(" ".join(cell.split()) for cell in cells) + " |")
    return "\n".join(lines)


def _absent(action: str, version: str) -> str:
    return "not offered" if action.partition(",")[0] in kinds_not_offered(version) else "not tried"


def main(wanted: Sequence[str]) -> int:
    """Try the wanted versions, all when none is named. Return the exit code."""
    trials: list[Trial] = []
    for version in wanted or VERSIONS:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="pilotage-compat-") as home:
            try:
                trials += trials_on(version, list(TARGETS), Path(home))
            except OrchestratorError as error:
                trials.append(Trial(version=version, action="start", outcome=str(error)))
        failed = [trial for trial in trials if trial.version == version and trial.outcome != "done"]
        sys.stderr.write(f"Prefect {version}: {len(failed)} failed, {time.monotonic() - begun:.0f} s\n")
        sys.stderr.writelines(f"  {trial.action}: {trial.outcome}\n" for trial in failed)
    sys.stdout.write(table_of(trials) + "\n")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {"at": datetime.now(UTC).isoformat(), "trials": [asdict(trial) for trial in trials]}, indent=1
        )
    )
    good = all(trial.outcome == "done" for trial in trials)
    if good and not wanted:
        head, _, rest = PAGE.read_text().partition(START)
        PAGE.write_text(f"{head}{START}\n{table_of(trials)}\n{END}{rest.partition(END)[2]}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
