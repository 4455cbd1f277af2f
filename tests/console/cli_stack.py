"""A API at which people can be played by the command line: real socket, ledger, gate and users; Prefect is not asked."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.flows.api.admin import AdminEndpoints
from pilotage.flows.api.client import ApiClient, ApiRejection
from pilotage.flows.api.proposals import ProposalEndpoints
from pilotage.flows.api.publishing import Publishing, begin_with
from pilotage.flows.api.server import ApiServer
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.controller.checkpoints import signer_of
from pilotage.flows.execution.injector import Injector
from pilotage.flows.execution.kill_switch import KillSwitch
from pilotage.flows.execution.mode import ModeSwitch
from pilotage.planner.actions.types import Action, RetryRun, target_of
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.gate.gate import Gate
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import Identity, Mode, TargetFacts
from pilotage.telemetry.store.duckdb import DuckDBStore

ONE_CASE = "- {case: a retry, outcome: allow, by_policies: [agent-retries]}\n"
PEOPLE = {
    "ada": ("admin",),
    "bob": ("admin",),
    "ann": ("approver",),
    "olga": ("operator",),
    "vic": ("viewer",),
}


class FailedProductionRun:
    """What Prefect would say of any target."""

    async def target(self, action: Action) -> TargetFacts:
        """The facts, read now."""
        return TargetFacts(
            target=target_of(action),
            read_at=datetime.now(UTC),
            state_type="FAILED",
            state_name="Failed",
            deployment_id="d-1",
            deployment_name="pay/out",
            env="prod",
            memory_mb=128,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CliStack:
    """The API's people, and what is behind it."""

    paths: StatePaths
    ledger: SqlLedger
    gate: Gate
    switch: ModeSwitch
    tokens: Mapping[str, str]

    def run(self, who: str, *arguments: str) -> tuple[int, Any]:
        """What `pilotage … --json` of this person exits with and prints."""
        code, said = self.say(who, *arguments, "--json")
        return code, json.loads(said)

    def say(self, who: str, *arguments: str) -> tuple[int, str]:
        """What `pilotage …` of this person exits with and prints, as one line of words."""
        token = self.paths.root / f"{who}.token"
        token.write_text(self.tokens[who])
        here = ("--state-dir", str(self.paths.root), "--token-file", str(token))
        result = CliRunner().invoke(app, [*arguments, *here])
        told = result.output if "--json" in arguments else " ".join(result.output.split())
        return result.exit_code, told

    def waiting(self, *causes: str) -> dict[str, Any]:
        """A proposal of the agent that waits for an approver; those of one cause are of one incident."""
        number, run_id = uuid4().hex[:12], str(uuid4())
        proposal = Proposal(
            id=f"p-{number}",
            incident_id=f"i-{number}",
            action=RetryRun(run_id=run_id),
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )
        told = CaseFile(subject=f"run:{run_id}", failure_class="transient", causes=causes)
        return ApiClient(self.paths.api_socket, self.tokens["planner"]).file(proposal, told)

    def api(self, who: str) -> ApiClient:
        """The API, asked by this person."""
        return ApiClient(self.paths.api_socket, self.tokens[who])

    def refused(self, who: str, op: str, **arguments: Any) -> tuple[str, str]:
        """The kind and the words of the refusal that a question gets."""
        try:
            self.api(who).call(op, **arguments)
        except ApiRejection as refusal:
            return refusal.kind, str(refusal)
        return "", ""

    def events(self) -> list[str]:
        """Every step of the audit log."""
        return [step["step"] for step in self.ledger.entries(0, 10_000)]


@contextmanager
def cli_stack(root: Path, *, mode: Mode = Mode.AUTO) -> Iterator[CliStack]:
    """The API, until the end of the block."""
    paths = StatePaths(root=root)
    book = IdentityBook(paths.users)
    tokens = {name: book.add(name, roles=roles) for name, roles in PEOPLE.items()}
    tokens["planner"] = book.issue_session_token(
        Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
    )
    with ExitStack() as stack:
        store = DuckDBStore(paths.telemetry)
        stack.callback(store.close)
        ledger = SqlLedger(f"sqlite:///{paths.ledger}", current_identity=book.current_identity)
        stack.callback(ledger.close)
        signer = signer_of(paths)
        own = root / "policies"  # the shipped ones with one case: publishing runs all
        shutil.copytree(DEFAULT_BUNDLE, own)
        (own / "cases.yaml").write_text(ONE_CASE)
        begun = begin_with(ledger, signer, Bundle.load(own), policies=own, guardrails=None, now=_now())
        gate, switch = Gate(begun), ModeSwitch(ledger, mode, _now)
        switch.begin()
        kill_switch = KillSwitch(paths.stop_file, ledger, resume_votes=lambda: 1)

        async def drained(pool: str, queue: str) -> bool:
            return False

        injector = Injector(
            ledger=ledger,
            gate=gate,
            facts=FailedProductionRun(),
            levers={},
            mode=switch.mode,
            stopped=kill_switch.stopped,
            clock=_now,
            owner="cli",
            drained=drained,
        )
        operations = ProposalEndpoints(
            ledger=ledger,
            gate=gate,
            injector=injector,
            store=store,
            kill_switch=kill_switch,
            mode=switch.mode,
            clock=_now,
            health=dict,
            wake=lambda: None,
        )
        governance = AdminEndpoints(
            ledger=ledger,
            gate=gate,
            judge=injector.judge,
            mode=switch,
            clock=_now,
            wake=lambda: None,
            current_identity=book.current_identity,
        )
        publishing = Publishing(
            ledger=ledger,
            gate=gate,
            signer=signer,
            current_identity=book.current_identity,
            mode=switch.mode,
            clock=_now,
        )
        tables = {**operations.table(), **governance.table(), **publishing.table()}
        stack.enter_context(_open(ApiServer(paths.api_socket, tables, book.authenticate)))
        yield CliStack(paths=paths, ledger=ledger, gate=gate, switch=switch, tokens=tokens)


@contextmanager
def _open(control_api: ApiServer) -> Iterator[None]:
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        await control_api.start()
        started.set()
        await stop.wait()
        await control_api.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(30)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def _now() -> datetime:
    return datetime.now(UTC)
