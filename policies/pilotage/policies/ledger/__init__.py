"""The ledger: proposals, verdicts, votes, outbox and outcomes, as SQL."""
