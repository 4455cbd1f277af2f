"""The ledger's tables, and how its database is opened.

SQLite by default: write-ahead log, `synchronous=FULL` (a row that was acknowledged survives a power cut), and
every writing transaction takes the write lock when it begins, so that what it counts cannot change under it.
Times are text in UTC with microseconds, which sorts as the moments do.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pilotage.policies.audit.table import metadata

WRITING = "pilotage_writing"
"""Execution option of a connection that will write: its transaction takes the write lock at once."""
BUSY_TIMEOUT_S = 30
"""How long a transaction waits for another process's write."""
SCHEMA_VERSION = 4

proposals = sa.Table(
    "proposals",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("incident_id", sa.Text, nullable=False, index=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("proposal", sa.Text, nullable=False),  # canonical JSON; hashed again before it is acted on
    sa.Column("proposer", sa.Text, nullable=False),
    sa.Column("case_file", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("deployment_id", sa.Text, nullable=False),
    sa.Column("filed_at", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("replaces", sa.Text, nullable=False, server_default=""),  # the id of what it is an edit of
    sa.Column(
        "replaced_by", sa.Text, nullable=False, server_default=""
    ),  # the id of the edit that took its place
)
listed = sa.Table(
    "listed",  # what lists are filtered, sorted, searched and counted by; made again from the others when rows are missing
    metadata,
    sa.Column("proposal_id", sa.Text, sa.ForeignKey("proposals.id"), primary_key=True),
    sa.Column("occurrence_id", sa.Text, nullable=False, index=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("env", sa.Text, nullable=False),
    sa.Column(
        "risk", sa.Float, nullable=False
    ),  # the forecast chance of failing; -1 when nothing was forecast
    sa.Column("seats", sa.Text, nullable=False),  # roles whose approval is missing: `|approver|owner|`
    sa.Column("barred", sa.Text, nullable=False),  # who may not approve, since they proposed it: `|pat|`
    sa.Column("filed_at", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Text, nullable=False),
    sa.Column("words", sa.Text, nullable=False),  # what is searched, in small letters
    *(
        sa.Index(f"listed_by_{column}", "status", column, "proposal_id")
        for column in ("filed_at", "expires_at", "risk", "deployment")
    ),
    sa.Index("listed_by_time", "filed_at", "proposal_id"),
)
verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("proposal_id", sa.Text, sa.ForeignKey("proposals.id"), nullable=False, index=True),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("target_facts", sa.Text, nullable=False),
    sa.Column("ledger_facts", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
)
votes = sa.Table(
    "votes",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("proposal_id", sa.Text, sa.ForeignKey("proposals.id"), nullable=False, index=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("voter", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("teams", sa.Text, nullable=False, server_default="[]"),
    sa.Column("delegated_by", sa.Text, nullable=False, server_default=""),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.UniqueConstraint("proposal_id", "voter", "decision"),
)
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("proposal_id", sa.Text, sa.ForeignKey("proposals.id"), primary_key=True),
    sa.Column("verdict_seq", sa.Integer, sa.ForeignKey("verdicts.seq"), nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("mark", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False, index=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("deployment_id", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False, server_default=""),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("admitted_at", sa.Text, nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("free_at", sa.Text, nullable=False),  # when a claim may be taken over, or a retry made
    sa.Column("last_error", sa.Text, nullable=False),
)
receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("proposal_id", sa.Text, sa.ForeignKey("outbox.proposal_id"), primary_key=True),
    sa.Column("effect", sa.Text, nullable=False),
    sa.Column("receipt", sa.Text, nullable=False),
    sa.Column("delivered_at", sa.Text, nullable=False),
    sa.Column("undo_at", sa.Text, nullable=False),
    sa.Column("undone_at", sa.Text, nullable=False),
    sa.Column("undo", sa.Text, nullable=False),
)
outcomes = sa.Table(
    "outcomes",
    metadata,
    sa.Column("proposal_id", sa.Text, sa.ForeignKey("outbox.proposal_id"), primary_key=True),
    sa.Column("judgement", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("final_state", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
)
grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False),
    sa.Column("kinds", sa.Text, nullable=False),
    sa.Column("targets", sa.Text, nullable=False),
    sa.Column("ended_at", sa.Text, nullable=False),
)
delegations = sa.Table(
    "delegations",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("giver", sa.Text, nullable=False),
    sa.Column("taker", sa.Text, nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False),
    sa.Column("teams", sa.Text, nullable=False),
    sa.Column("ended_at", sa.Text, nullable=False),
)
escalations = sa.Table(
    "escalations",
    metadata,
    sa.Column("proposal_id", sa.Text, sa.ForeignKey("proposals.id"), primary_key=True),
    sa.Column("asked", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
)
autonomy = sa.Table(
    "autonomy",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False, index=True),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)
bundles = sa.Table(
    "bundles",
    metadata,
    sa.Column("bundle", sa.Text, primary_key=True),  # its hash
    sa.Column("files", sa.Text, nullable=False),
)
publications = sa.Table(
    "publications",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("bundle", sa.Text, sa.ForeignKey("bundles.bundle"), nullable=False),
    sa.Column("how", sa.Text, nullable=False),
    sa.Column("people", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)
incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # that of the occurrence that opened it
    sa.Column("cause", sa.Text, nullable=False),  # the strongest cause key
    sa.Column("state", sa.Text, nullable=False, index=True),  # open, resolved, merged
    sa.Column("sealed", sa.Integer, nullable=False),  # 1: split off by a person
    sa.Column("merged_into", sa.Text, nullable=False),
    sa.Column(
        "earlier", sa.Text, nullable=False
    ),  # JSON: earlier incidents of the same cause, and what helped
    sa.Column("opened_at", sa.Text, nullable=False),
    sa.Column("last_at", sa.Text, nullable=False),  # of its last failure
    sa.Column("resolved_at", sa.Text, nullable=False, index=True),
    sa.Column("resolution", sa.Text, nullable=False),
    sa.Column("reopened", sa.Integer, nullable=False),
    sa.Column("told", sa.Text, nullable=False),  # JSON: what its page and its events said last
)
incident_causes = sa.Table(
    "incident_causes",
    metadata,
    sa.Column("incident_id", sa.Text, sa.ForeignKey("incidents.id"), primary_key=True),
    sa.Column("cause", sa.Text, primary_key=True, index=True),
)
incident_runs = sa.Table(
    "incident_runs",
    metadata,
    sa.Column("occurrence_id", sa.Text, primary_key=True),  # what a proposal names as its incident
    sa.Column("incident_id", sa.Text, sa.ForeignKey("incidents.id"), nullable=False, index=True),
    sa.Column("subject", sa.Text, nullable=False, index=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("failure_class", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),  # open, recovered, superseded, waived
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("closed_at", sa.Text, nullable=False),
)
switches = sa.Table(
    "switches",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
_STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE votes ADD COLUMN teams TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE votes ADD COLUMN delegated_by TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE outbox ADD COLUMN fingerprint TEXT NOT NULL DEFAULT ''",
    ),
    2: (
        "ALTER TABLE proposals ADD COLUMN replaces TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE proposals ADD COLUMN replaced_by TEXT NOT NULL DEFAULT ''",
    ),
    3: (
        # every trouble on record was an incident of its own; nobody kept whether its run recovered
        "INSERT INTO incidents (id, cause, state, sealed, merged_into, earlier, opened_at, last_at, resolved_at, "
        "resolution, reopened, told) SELECT incident_id, '', 'resolved', 0, '', '[]', MIN(filed_at), MAX(filed_at), "
        "MAX(filed_at), 'it was before incidents were kept', 0, '{}' FROM proposals "
        "WHERE incident_id NOT IN (SELECT id FROM incidents) GROUP BY incident_id",
        "INSERT INTO incident_runs (occurrence_id, incident_id, subject, run_id, failure_class, state, why, at, "
        "closed_at) SELECT incident_id, incident_id, MIN(target), MAX(run_id), '', 'superseded', "
        "'it was before incidents were kept', MIN(filed_at), MAX(filed_at) FROM proposals "
        "WHERE incident_id NOT IN (SELECT occurrence_id FROM incident_runs) GROUP BY incident_id",
    ),
}
"""What brings a database of this version to the next; new tables are made without being told to."""

_APPEND_ONLY = tuple(
    f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb} BEFORE {verb} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    for table in ("audit", "audit_cuts")
    for verb in ("UPDATE", "DELETE")
)


def allow_cutting(connection: sa.Connection) -> None:
    """Let this transaction delete entries of the audit log; `forbid_cutting` ends that within the same one."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TRIGGER IF EXISTS audit_no_DELETE")


def forbid_cutting(connection: sa.Connection) -> None:
    """Have the audit log append-only again."""
    if connection.dialect.name == "sqlite":
        for statement in _APPEND_ONLY:
            connection.exec_driver_sql(statement)


def opened(url: str) -> sa.Engine:
    """The database at this SQLAlchemy URL with its tables in place. Raises SQLAlchemyError."""
    parsed = sa.make_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"max_overflow": -1}
    if sqlite:
        options["connect_args"] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = sa.create_engine(parsed, **options)
    if sqlite:
        sa.event.listen(engine, "connect", _on_connect)
        sa.event.listen(engine, "begin", _on_begin)
    try:
        with engine.connect().execution_options(**{WRITING: True}) as connection, connection.begin():
            metadata.create_all(connection)
            if sqlite:
                for statement in _APPEND_ONLY:
                    connection.exec_driver_sql(statement)
            stored = connection.execute(
                sa.select(switches.c.value).where(switches.c.name == "schema")
            ).scalar_one_or_none()
            if stored is None:
                connection.execute(switches.insert().values(name="schema", value=str(SCHEMA_VERSION)))
            elif int(stored) > SCHEMA_VERSION:
                raise sa.exc.InvalidRequestError(f"schema version {stored} is newer than {SCHEMA_VERSION}")
            else:
                for version in range(int(stored), SCHEMA_VERSION):
                    for statement in _STEPS[version]:
                        connection.exec_driver_sql(statement)
                connection.execute(
                    switches.update().where(switches.c.name == "schema").values(value=str(SCHEMA_VERSION))
                )
    except BaseException:
        engine.dispose()
        raise
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get(WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
