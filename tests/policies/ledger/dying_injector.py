"""A process that works on the ledger up to a named point, says so, and waits there to be killed."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

from pilotage.policies.gate.gate import LedgerFacts
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Mode, Outcome, Verdict


def wait_at(point: str) -> None:
    """Never comes back at the point that was asked for."""
    if sys.argv[1] == point:
        print("here", flush=True)
        sys.stdin.read()
        sys.exit("nobody killed me")


def allow(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
    wait_at("in admit")
    return Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))


def main() -> None:
    _, _, url, proposal_id, moment = sys.argv
    now = datetime.fromisoformat(moment)
    ledger = SqlLedger(url)
    ledger.admit(proposal_id, allow, Mode.AUTO, now)
    wait_at("after admit")
    ledger.claim("dying", now, timedelta(seconds=30))
    wait_at("after claim")
    with ledger.writing("recording") as connection:
        connection.exec_driver_sql("UPDATE outbox SET state = 'delivered'")
        wait_at("in recording")


if __name__ == "__main__":
    main()
