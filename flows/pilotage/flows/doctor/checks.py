"""The checks of `pilotage doctor`, as one table of functions from facts to what was found and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from pilotage.flows.doctor.facts import DoctorFacts, ModeFacts, PoolFacts, Problem, ServerFacts
from pilotage.flows.doctor.tags import KINDS, missing_tags
from pilotage.policies.types import Mode
from pilotage.telemetry.pool_memory import ADAPTERS


class Level(IntEnum):
    """How bad it is; the worst of all checks is the exit code, where OK and NOTE are 0."""

    OK = 0
    NOTE = 1
    """Right as it is; something could be better."""
    WARNING = 2
    """It works, and not as its owner would expect."""
    BROKEN = 3
    """pilotage cannot do its work."""


EXIT_CODES = {Level.OK: 0, Level.NOTE: 0, Level.WARNING: 1, Level.BROKEN: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one check."""

    level: Level
    found: str
    todo: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A result under the name of its check."""

    check: str
    result: Result


HEARTBEATS_SINCE = (3, 6, 22)
"""The first Prefect whose flow runs send heartbeats unless told otherwise."""
MEMORY_VARIABLES = {kind: adapter.reads for kind, adapter in ADAPTERS.items()}
"""The job variable that sets a run's memory, by type of work pool without `:push`."""
_NAMED = 3
"""Examples that a row names."""


def run_checks(facts: DoctorFacts) -> tuple[Row, ...]:
    """Return one row for each check that has something to say, in the order of the table."""
    results = ((name, check(facts)) for name, check in CHECKS)
    return tuple(Row(check=name, result=result) for name, result in results if result is not None)


def exit_code(rows: Iterable[Row]) -> int:
    """Return 0 when all is well or merely noted, 1 for a warning, 2 for what is broken."""
    return EXIT_CODES[max((row.result.level for row in rows), default=Level.OK)]


def _ok(finding: str) -> Result:
    return Result(level=Level.OK, found=finding)


def _note(finding: str, todo: str = "") -> Result:
    return Result(level=Level.NOTE, found=finding, todo=todo)


def _warning(finding: str, todo: str) -> Result:
    return Result(level=Level.WARNING, found=finding, todo=todo)


def _broken(finding: str, todo: str = "") -> Result:
    return Result(level=Level.BROKEN, found=finding, todo=todo)


def _from(problem: Problem, todo: str = "Read the message.") -> Result:
    """A problem whose message names what to do in its last sentence; `todo` is for one that does not."""
    said = " ".join(problem.message.split())
    finding, _, advice = said.rpartition(". ")
    if finding and advice[0].isupper() and "://" not in advice.partition(" ")[0]:
        return _broken(finding, advice)
    return _broken(said, todo)


# -- the Prefect server --------------------------------------------------------------------------------------


def address(facts: DoctorFacts) -> Result:
    """Where Prefect is."""
    return _from(facts.api_url) if isinstance(facts.api_url, Problem) else _ok(facts.api_url)


def credentials(facts: DoctorFacts) -> Result | None:
    """Whether the server takes the credential."""
    match facts.server:
        case ServerFacts():
            return _ok("accepted")
        case problem if facts.key_refused:
            return _from(problem)
        case _:
            return None  # who does not answer refuses nothing


def server(facts: DoctorFacts) -> Result | None:
    """Which Prefect answers, and whether it is one that pilotage knows."""
    match facts.server:
        case ServerFacts(version=version):
            return _ok(f"Prefect {version}")
        case problem:
            unknown = facts.key_refused or isinstance(facts.api_url, Problem)
            return None if unknown else _from(problem)


def client(facts: DoctorFacts) -> Result:
    """Which Prefect is installed here. Prefect's own rule: a client is of the server's version or older."""
    match facts.server:
        case ServerFacts(version=version) if numbers(facts.client) > numbers(version):
            return _note(
                f"Prefect {facts.client}, newer than the server",
                "Nothing for pilotage, whose requests are those of the oldest server that it knows.",
            )
        case _:
            return _ok(f"Prefect {facts.client}, pilotage {facts.pilotage}")


def workers(facts: DoctorFacts) -> Result | None:
    """Whether each pool that deployments use is served."""
    if isinstance(facts.server, Problem):
        return None
    used = {each.pool for each in facts.server.deployments if each.pool and not each.paused}
    pools = [pool for pool in facts.server.pools if pool.takes_workers]
    alone = [pool.name for pool in pools if pool.name in used and not pool.paused and not pool.workers_online]
    if alone:
        return _warning(
            f"no worker is online for {_some(alone)}: runs of their deployments do not start",
            f"Start one: `prefect worker start --pool {alone[0]}`.",
        )
    idle = [pool.name for pool in pools if not pool.workers_online]
    online = sum(pool.workers_online for pool in pools)
    if not facts.server.pools:
        return _note("the server has no work pool", "Nothing, if your flows serve themselves.")
    return _ok(
        f"{_count(online, 'worker')} online for {_count(len(facts.server.pools), 'pool')}"
        + (f"; unused and without one: {_some(idle)}" if idle else "")
    )


def queues(facts: DoctorFacts) -> Result | None:
    """Whether each queue that deployments use is polled and not paused."""
    if isinstance(facts.server, Problem) or not facts.server.pools:
        return None
    used = {(each.pool, each.queue) for each in facts.server.deployments if each.pool and not each.paused}
    held = [
        pool.name for pool in facts.server.pools if pool.paused and pool.name in {name for name, _ in used}
    ]
    held += [
        f"{pool.name}/{queue.name}"
        for pool in facts.server.pools
        for queue in pool.queues
        if queue.status == "PAUSED" and (pool.name, queue.name) in used and not pool.paused
    ]
    deaf = [
        f"{pool.name}/{queue.name}"
        for pool in facts.server.pools
        for queue in pool.queues
        if queue.status == "NOT_READY"
        and (pool.name, queue.name) in used
        # without a worker, the check of workers says so
        and pool.workers_online
        and pool.takes_workers
    ]
    if deaf:
        return _warning(
            f"nobody asks for the work of {_some(deaf)}", "Give a worker this queue: `--work-queue NAME`."
        )
    if held:
        return _warning(f"paused: {_some(held)}", "Resume them, if you did not pause them on purpose.")
    return _ok(
        f"{_count(sum(len(pool.queues) for pool in facts.server.pools), 'queue')}, all used ones polled"
    )


def heartbeats(facts: DoctorFacts) -> Result | None:
    """Whether runs say that they live: without that, a dead one cannot be told from a silent one."""
    if isinstance(facts.server, Problem):
        return None
    if facts.server.last_heartbeat is not None:
        return _ok("flow runs send them")
    if facts.server.long_runs:
        return _warning(
            f"none in the last day, in which {_count(facts.server.long_runs, 'run')} lasted long enough: "
            "a run that died unseen stays Running",
            "Set PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30 where workers run, "
            f"and run flows on Prefect {'.'.join(map(str, HEARTBEATS_SINCE))} or later.",
        )
    return _note("none in the last day, and no run that lasted long enough to send one")


def tags(facts: DoctorFacts) -> Result | None:
    """Whether deployments say what they are: what says nothing counts as production."""
    if isinstance(facts.server, Problem) or not facts.server.deployments:
        return None
    lacking = missing_tags(facts.server.deployments)
    if not lacking:
        return _ok(f"{_count(len(facts.server.deployments), 'deployment')}, all with {_kinds(KINDS)}")
    by_kind = {kind: [each.deployment for each in lacking if kind in each.missing] for kind in KINDS}
    total = len(facts.server.deployments)
    reasons = "; ".join(
        f"{len(names)} of {total} without `{kind}:`" + (", so production" if kind == "env" else "")
        for kind, names in by_kind.items()
        if names
    )
    example = f" (as {_some(each.deployment for each in lacking)})"
    todo = "`pilotage doctor tags` prints the lines to add to `prefect.yaml`."
    return (_warning if by_kind["env"] else _note)(reasons + example, todo)


def memory(facts: DoctorFacts) -> Result | None:
    """Whether the pools let a run be given more memory."""
    if isinstance(facts.server, Problem) or not facts.server.pools:
        return None
    fixed = [pool for pool in facts.server.pools if not memory_variables(pool)]
    if not fixed:
        return _ok("every pool's template has a memory variable that is known")
    wanted = sorted({name for pool in fixed for name in MEMORY_VARIABLES.get(pool_type(pool), ())})
    hint = f"Add {' or '.join(f'`{name}`' for name in wanted)} to the template" if wanted else "Nothing"
    return _note(
        f"no memory variable that is known in the template of {_some(pool.name for pool in fixed)}: "
        "runs there are never given more memory",
        f"{hint}, if their infrastructure can do that.",
    )


# -- the installation ----------------------------------------------------------------------------------------


def settings(facts: DoctorFacts) -> Result:
    """Whether the settings can be read."""
    return _from(facts.settings, "Correct that flag, variable or line.") if facts.settings else _ok("valid")


def state_directory(facts: DoctorFacts) -> Result:
    """Whether the state directory can be used."""
    if facts.directory is not None:
        return _from(facts.directory)
    if not facts.exists:
        return _note(f"{facts.root} is not there yet", "The first `pilotage up` makes it.")
    return _ok(str(facts.root))


def permissions(facts: DoctorFacts) -> Result | None:
    """Whether others than the owner may open what is in the state directory."""
    if facts.directory is not None or not facts.exists:
        return None
    if facts.loose:
        lines = [f"{path} ({mode:04o})" for path, mode in sorted(facts.loose.items())]
        return _warning(
            f"others may open {_some(lines)}", f"Run `chmod -R go= {facts.root}`, or restart `pilotage up`."
        )
    return _ok("its owner's alone")


def process(facts: DoctorFacts) -> Result:
    """Whether the loop runs."""
    if facts.running:
        return _ok(f"`pilotage up` runs as process {facts.running}")
    return _note("`pilotage up` does not run", "Start it: `pilotage up`.")


def token(facts: DoctorFacts) -> Result:
    """Whether the token at hand proves somebody."""
    if not isinstance(facts.token, Problem):
        return _ok(f"{facts.token}'s, in {facts.token_file}")
    if facts.users == () and not facts.running:
        return _note(f"none yet in {facts.token_file}", "The first `pilotage up` makes it.")
    return _from(facts.token)


def users(facts: DoctorFacts) -> Result:
    """Whether there is an admin, and a second one for what takes two."""
    if isinstance(facts.users, Problem):
        return _from(facts.users, "Correct the file where it says; until then nobody may do anything.")
    if not facts.users:
        return _note("nobody yet", "The first `pilotage up` makes you an admin.")
    admins = [user.name for user in facts.users if user.is_admin]
    known = f"{_count(len(facts.users), 'user')}, admin: {', '.join(admins)}"
    match admins:
        case []:
            return _broken(
                f"{_count(len(facts.users), 'user')} and no admin: nobody may publish policies or set the mode",
                "Restart `pilotage up`, which makes you one, or run `pilotage users add NAME --role admin`.",
            )
        case [only]:
            return _warning(
                f"{known}: resuming after a stop and publishing policies take two people unless your "
                "guardrails say otherwise",
                f"Add a second one besides {only}: `pilotage users add NAME --role admin`.",
            )
        case _:
            return _ok(known)


def mode(facts: DoctorFacts) -> Result:
    """How far the loop goes."""
    match facts.mode:
        case ModeFacts(mode=Mode.OBSERVE | Mode.SHADOW as which, source=source):
            return _note(
                f"{which.value} ({source}): nothing is ever changed in Prefect",
                "When you agree with its proposals: `pilotage mode set approve`.",
            )
        case ModeFacts(mode=which, source=source):
            return _ok(f"{which.value} ({source})")
        case problem:
            return _from(problem, "Restore the ledger from a backup, or name another --state-dir.")


def policies(facts: DoctorFacts) -> Result:
    """Which policies decide."""
    match facts.policies:
        case Problem() as problem:
            return _from(problem, "Correct it there, then run `pilotage policy check`.")
        case found if found.in_force and found.in_force != found.configured:
            return _warning(
                f"{found.in_force[:12]} is in force, the settings name {found.configured[:12]}",
                "See `pilotage policy published`; `pilotage policy publish DIRECTORY` puts others in force.",
            )
        case found:
            return _ok(
                found.configured[:12] + ("" if found.in_force else ", in force from the first start on")
            )


def webhook(facts: DoctorFacts) -> Result:
    """Whether owners can be told."""
    acting = isinstance(facts.mode, ModeFacts) and facts.mode.mode in (Mode.APPROVE, Mode.AUTO)
    if not facts.webhook.configured:
        return (_warning if acting else _note)(
            "none: nobody is told what waits for a person or went wrong",
            "Set `webhook_url` or `pages.channels`.",
        )
    if facts.webhook.problem:
        return _broken(
            facts.webhook.problem,
            "Correct `webhook_url`, `webhook_routing_key` or `pages.channels`, and try again.",
        )
    return _ok("took the test" if facts.webhook.tried else "set; --send-test tries it")


def model(facts: DoctorFacts) -> Result:
    """Whether the language model answers, where there is to be one."""
    endpoint = facts.model
    if not endpoint.configured:
        return _ok("none configured: rules do the whole loop")
    if endpoint.problem:
        return _warning(
            f"{endpoint.endpoint}: {endpoint.problem}; rules answer instead",
            "Correct `llm.base_url` and `llm.api_key`, or start the endpoint.",
        )
    if endpoint.models and endpoint.name not in endpoint.models:
        return _warning(
            f"{endpoint.endpoint} does not list {endpoint.name}",
            f"Set `llm.model` to one of {_some(endpoint.models)}.",
        )
    return _ok(f"{endpoint.name} at {endpoint.endpoint}")


CHECKS: tuple[tuple[str, Callable[[DoctorFacts], Result | None]], ...] = (
    ("settings", settings),
    ("address", address),
    ("credentials", credentials),
    ("server", server),
    ("client", client),
    ("state directory", state_directory),
    ("permissions", permissions),
    ("pilotage up", process),
    ("token", token),
    ("users", users),
    ("mode", mode),
    ("policies", policies),
    ("webhook", webhook),
    ("model", model),
    ("workers", workers),
    ("queues", queues),
    ("heartbeats", heartbeats),
    ("tags", tags),
    ("memory", memory),
)
"""Every check under the name of its row."""


# -- words and numbers ---------------------------------------------------------------------------------------


def numbers(version: str) -> tuple[int, ...]:
    """Return the three numbers of a version, as in `3.8.8` or `3.9.0.dev1`."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def pool_type(pool: PoolFacts) -> str:
    """Return the type of a pool without the way in which it is served."""
    return pool.type.partition(":")[0]


def memory_variables(pool: PoolFacts) -> tuple[str, ...]:
    """Return the variables of its template that are known to set a run's memory; any type may have ours."""
    known = {*MEMORY_VARIABLES.get(pool_type(pool), ()), *MEMORY_VARIABLES["process"]}
    return tuple(name for name in pool.variables if name in known)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _kinds(kinds: Iterable[str]) -> str:
    return ", ".join(f"`{kind}:`" for kind in kinds)


def _some(names: Iterable[str]) -> str:
    def listed() -> Iterator[str]:
        each = list(names)
        yield from each[:_NAMED]
        if len(each) > _NAMED:
            yield f"and {len(each) - _NAMED} more"

    return ", ".join(listed())
