"""The injecting process is killed at every boundary; started again, it leaves the effect of one that was not killed.

`make soak` goes through every kind of target and every boundary and counts; `make test` goes through every boundary
of one lever of each mechanism by which a lever finds what it did before: a mark in a run's history, a note, a label,
a key, an input, the keys and record of a backlog, and a count.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.conftest import PrefectServer
from tests.flows.dead_run_targets import DEAD_RUNS
from tests.flows.execution.dying_injector import Order
from tests.flows.lever_targets import TARGETS as LIVING
from tests.flows.lever_targets import LeverTargets, Make, Target
from tests.flows.soak_report import progress, record

from pilotage.planner.actions.types import KINDS
from pilotage.planner.proposals import CaseFile, Proposal
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, SCHEMA_FILE
from pilotage.policies.digests import digest_of, idempotency_key_of
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity

pytestmark = pytest.mark.prefect

PLANNER = Identity(name="planner", kind="agent", roles=frozenset({"agent"}))
TARGETS: Mapping[str, Make] = {**LIVING, **DEAD_RUNS}
DRIVER = Path(__file__).with_name("dying_injector.py")
LOG = "injectors.log"
LEDGER_STEPS = ("filed", "judged", "admitted", "claimed", "effect", "recorded", "verified")
"""Boundaries that every change has, whatever its lever does."""
ONLY = tuple(filter(None, os.environ.get("SOAK_CRASHES", "").split(";")))
"""Some of the targets by name, between semicolons, for whoever mends one lever; all when it is empty."""
BEFORE = frozenset({"filed", "judged", "admitted", "claimed"})
"""Where nothing has been sent to Prefect yet."""
ALLOW_ALL = """
@id("all")
@reason("what policy allows is not what is tested here")
permit (
  principal in Pilotage::Role::"agent",
  action in [Pilotage::Action::"reversible", Pilotage::Action::"disruptive"],
  resource
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What an injector that nobody kills makes of a target of one kind."""

    before: Any
    after: Any
    undone: Any
    status: str
    undone_status: str
    writes: int
    undo_writes: int

    def boundaries(self) -> tuple[str, ...]:
        """Every boundary on the way there."""
        return (
            *LEDGER_STEPS[:4],
            *(f"write:{number}" for number in range(1, self.writes + 1)),
            *LEDGER_STEPS[4:],
        )

    def ways_back(self) -> tuple[str, ...]:
        """Every boundary on the way back."""
        return (*(f"undo:{number}" for number in range(1, self.undo_writes + 1)), "undone")


@dataclass(kw_only=True)
class Crashes:
    """Makes targets, has proposals about them carried out by processes that die, and looks at what came of it."""

    targets: LeverTargets
    bundle: Path
    home: Path
    zygote: subprocess.Popen[str]
    references: dict[str, Reference] = field(default_factory=dict)

    def file(self, target: Target) -> tuple[SqlLedger, FiledProposal, Path]:
        """A new ledger with one proposal about the target."""
        number = uuid4().hex[:12]
        proposal = Proposal(
            id=f"p-{number}",
            incident_id=f"i-{number}",
            action=target.action,
            expected_state_id=target.expected_state_id,
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )
        filed = FiledProposal(
            proposal=proposal,
            case=CaseFile(subject="run", failure_class="transient"),
            proposer=PLANNER,
            digest=digest_of(proposal, PLANNER),
            filed_at=datetime.now(UTC),
        )
        path = self.home / f"{number}.sqlite"
        ledger = SqlLedger(f"sqlite:///{path}")
        ledger.file(filed)
        return ledger, filed, path

    def drive(self, path: Path, proposal_id: str, step: str, *, undo: bool = False) -> dict[str, int]:
        """How one more process ended that took the proposal as far as this step."""
        order: Order = {
            "ledger": str(path),
            "bundle": str(self.bundle),
            "proposal": proposal_id,
            "step": step,
            "undo": undo,
        }
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.write(json.dumps(order) + "\n")
        self.zygote.stdin.flush()
        told: dict[str, int] = json.loads(self.zygote.stdout.readline())
        assert told["code"] == (0 if step == "none" else -signal.SIGKILL), f"{step}: {told}; {self.said()}"
        return told

    def said(self) -> str:
        """The end of what the processes wrote."""
        return (self.home / LOG).read_text()[-1500:]

    def reference(self, name: str) -> Reference:
        """The effect of an injector that is not killed, found once."""
        if name not in self.references:
            target = self.targets.ask(lambda api: TARGETS[name](self.targets, api))
            ledger, filed, path = self.file(target)
            proposal_id, idempotency_key = filed.proposal.id, idempotency_key_of(filed.digest)
            before = self.look(target, idempotency_key)
            there = self.drive(path, proposal_id, "none")
            after, status = self.look(target, idempotency_key), str(ledger.status(proposal_id))
            assert status in ("delivered", "verified"), f"{name}: {ledger.story(proposal_id)[-1]!s}"
            back = self.drive(path, proposal_id, "none", undo=True)
            self.references[name] = Reference(
                before=before,
                after=after,
                undone=self.look(target, idempotency_key),
                status=status,
                undone_status=str(ledger.status(proposal_id)),
                writes=there["writes"],
                undo_writes=back["undo_writes"],
            )
            ledger.close()
            assert after != before or name == "notify_owner"
        return self.references[name]

    def look(self, target: Target, idempotency_key: str) -> Any:
        """What there is to see of the target now."""
        return self.targets.ask(lambda api: target.look(api, idempotency_key))

    def killed(self, name: str, step: str) -> str:
        """How much of the effect stood when the process had died at this step: none, half or one.

        Fails unless a process that is started again leaves exactly the effect of one that was not killed.
        """
        wanted, back = self.reference(name), step in self.reference(name).ways_back()
        target = self.targets.ask(lambda api: TARGETS[name](self.targets, api))
        ledger, filed, path = self.file(target)
        proposal_id, idempotency_key = filed.proposal.id, idempotency_key_of(filed.digest)
        if back:
            self.drive(path, proposal_id, "none")
        self.drive(path, proposal_id, step, undo=back)
        stood = self.look(target, idempotency_key)
        self.drive(path, proposal_id, "none", undo=back)
        end = wanted.undone if back else wanted.after
        assert self.look(target, idempotency_key) == end, f"{name} killed at {step}"
        ended = wanted.undone_status if back else wanted.status
        assert _standing(ledger.status(proposal_id)) == _standing(ended), f"{name} killed at {step}"
        # and once more: whoever comes later finds nothing to do
        self.drive(path, proposal_id, "none", undo=back)
        assert self.look(target, idempotency_key) == end, f"{name} killed at {step}, started a third time"
        assert ledger.verify_audit().ok
        ledger.close()
        start = wanted.after if back else wanted.before
        return "one" if stood == end else "none" if stood == start else "half"


def _standing(status: str) -> str:
    # whether an event could be read back yet when it was verified is not the crash's doing
    return "delivered" if status == "verified" else status


@pytest.fixture(scope="session")
def crashes(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    """The lever targets and a process that forks injectors."""
    home = tmp_path_factory.mktemp("crashes")
    bundle = home / "bundle"
    bundle.mkdir()
    shutil.copy(DEFAULT_BUNDLE / SCHEMA_FILE, bundle)
    (bundle / "all.cedar").write_text(ALLOW_ALL)
    targets = LeverTargets(server=prefect_server)
    targets.open()
    with (home / LOG).open("w") as log:
        zygote = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            env=prefect_server.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield Crashes(targets=targets, bundle=bundle, home=home, zygote=zygote)
        finally:
            zygote.kill()
            zygote.communicate()


MECHANISMS = {
    "a mark in the history": ("retry_run", ("write", "undo")),
    "a note": ("set_limit, pool", ("write", "undo")),
    "a label": ("raise_retries", ("write",)),
    "a key": ("move_run", ("write",)),
    "an input": ("send_directive", ("write",)),
    "the keys of a backlog": ("spread_runs", ("write",)),
    "a count": ("release_slot, deployment", ("write",)),
}


@pytest.mark.parametrize("step", LEDGER_STEPS)
def test_killed_between_two_rows_and_started_again_there_is_exactly_one_effect(
    crashes: Crashes, step: str
) -> None:
    stood = crashes.killed("retry_run", step)
    assert stood == ("none" if step in BEFORE else "one")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_killed_between_two_writes_and_started_again_there_is_exactly_one_effect(
    crashes: Crashes, mechanism: str
) -> None:
    name, phases = MECHANISMS[mechanism]
    wanted = crashes.reference(name)
    steps = [
        step
        for step in (*wanted.boundaries(), *wanted.ways_back())
        if step.partition(":")[0] in phases and step != "undone"
    ]
    assert steps
    # of a backlog's writes, all alike, every fourth will do here
    for step in steps[:: 4 if len(steps) > 6 else 1]:
        crashes.killed(name, step)


def test_no_kind_of_action_is_left_out_of_the_matrix() -> None:
    assert {name.partition(",")[0] for name in TARGETS} == set(KINDS)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_every_lever_is_killed_at_every_boundary(crashes: Crashes) -> None:
    stood: Counter[str] = Counter()
    table: dict[str, dict[str, str]] = {}
    wrong: list[str] = []
    for name in ONLY or TARGETS:
        wanted = crashes.reference(name)
        row = table.setdefault(name, {})
        for step in (*wanted.boundaries(), *wanted.ways_back()):
            try:
                row[step] = crashes.killed(name, step)
            except AssertionError as error:
                row[step] = "WRONG"
                wrong.append(str(error))
            stood[row[step]] += 1
        progress(f"{name}: {len(row)} boundaries, {dict(Counter(row.values()))}")
        record(
            "crashes of some" if ONLY else "crashes",
            {
                "levers": len(table),
                "boundaries": sum(len(each) for each in table.values()),
                "stood_when_killed": dict(stood),
                "not_exactly_one_effect_after_restart": wrong,
                "table": table,
            },
        )
    assert not wrong
