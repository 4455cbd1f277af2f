"""Names in a question: ids, runs, deployments by whole names or parts of them, pools, queues, limits, automations."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.telemetry.store.protocol import Store

MOST = 5000
"""Deployments whose names are read."""
RUN_ID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")
SHORT_ID = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8}\b")
RECORD = re.compile(r"\b([pi])-[0-9a-f]{4,12}\b")
HERE = " NAME "
"""What stands in a question where a name stood."""
WEAK = frozenset(
    "prod production dev staging test default main daily hourly weekly monthly flow deployment job pipeline run".split()  # noqa: SIM905
)
"""Parts of names that mean nothing by themselves."""
_QUESTION_WORDS = """
    a about after again all an and any anything are as at be been before being blocked by can cause caused change changed
    compare completed could crash crashed day did difference different do does done error errors every everything exactly
    fail failed failing failure failures fine finish finished first fix for from get give go going good got had happen
    happened happening has have held help her his history hold how i if in incident incidents into is it its job jobs just
    kind last late latest let like limit limits list log logs long look me more most much my name need new next no normal
    normally not now of often ok on once one or order our out over pause paused pending please pool problem queue queues
    ran reason recent retry right run running runs same schedule scheduled see seen should show since slot slots slow slower
    so some somebody someone start started state status still stop stuck success take takes task tasks tell than that the
    their them then there these they think this those time times to today took usual usually versus wait waiting waits want
    was we were what when where which who whose why will with worker workers would wrong you your
"""
GRAMMAR = frozenset(_QUESTION_WORDS.split())
"""Words of questions; they name something only inside a whole name."""
_TOKEN = re.compile(r"[a-z0-9]+")
_BEGIN, _END = r"(?<![\w/-])", r"(?![\w/-])"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One thing that has a name."""

    kind: str
    """`run`, `deployment`, `pool`, `queue`, `limit`, `automation`, `proposal` or `incident`."""
    key: str
    """Its id, or its name where it has none."""
    name: str


@dataclass(slots=True, kw_only=True)
class Mentions:
    """What a question names."""

    rest: str
    """The question with a placeholder for each name."""
    runs: list[Named] = field(default_factory=list)
    deployments: list[Named] = field(default_factory=list)
    """More than one where the words fit several."""
    others: list[Named] = field(default_factory=list)
    """Pools, queues, limits, automations, proposals and incidents."""

    def first(self, kind: str) -> Named | None:
        """The first of a kind, or None."""
        return next((each for each in self.others if each.kind == kind), None)


def mentions_in(text: str, store: Store) -> Mentions:
    """Return what a lower-case question names. Reads the store."""
    found = Mentions(rest=text)
    for match in list(RUN_ID.finditer(text)):
        _take_id(found, match.group(0), store)
    for match in list(SHORT_ID.finditer(found.rest)):
        _take_id(found, match.group(0), store)
    for match in list(RECORD.finditer(found.rest)):
        kind = "proposal" if match[1] == "p" else "incident"
        found.others.append(Named(kind=kind, key=match.group(0), name=match.group(0)))
        found.rest = found.rest.replace(match.group(0), HERE, 1)
    sql = "SELECT deployment_id, flow_name, name FROM deployments ORDER BY flow_name, name LIMIT ?"
    known = [Deployment.of(row) for row in store.rows(sql, [MOST])]
    _governing(found, store, {each.flow.lower() for each in known})
    _whole_names(found, known)
    if not found.deployments:
        _run_names(found, store)
    if not found.deployments and not found.runs:
        _parts(found, known)
    return found


def _take_id(found: Mentions, written: str, store: Store) -> None:
    rows = store.rows("SELECT run_id, name FROM runs WHERE starts_with(run_id, ?) LIMIT 5", [written])
    if len(rows) == 1 or (len(written) == 36 and not rows):
        run = rows[0] if rows else {"run_id": written, "name": written}
        whole = [] if rows else store.rows(
            "SELECT deployment_id, flow_name, name FROM deployments WHERE deployment_id = ?", [written]
        )  # fmt: skip
        if whole:
            found.deployments.append(Deployment.of(whole[0]).named())
        else:
            found.runs.append(Named(kind="run", key=run["run_id"], name=run["name"]))
        found.rest = found.rest.replace(written, HERE, 1)


def _governing(found: Mentions, store: Store, flows: set[str]) -> None:
    """Pools, queues, limits and automations: what has such a word beside it, or a name that nothing else has."""
    pools = [
        str(row["pool"])
        for row in store.rows("SELECT pool FROM pools UNION SELECT DISTINCT pool FROM queues")
    ]
    queues = store.rows("SELECT DISTINCT pool, queue FROM queues ORDER BY pool, queue")
    limits = [str(row["name"]) for row in store.rows("SELECT name FROM limits")]
    automations = [str(row["name"]) for row in store.rows("SELECT name FROM automations")]
    for row in queues:
        _take(found, "queue", f"{row['pool']}/{row['queue']}", (f"{row['pool']}/{row['queue']}",))
    for row in queues:
        name = re.escape(str(row["queue"]).lower())
        beside = rf"\b{name} (?:work )?queue\b|\bqueue {name}{_END}"
        if not found.first("queue") and re.search(beside, found.rest):
            _take(found, "queue", f"{row['pool']}/{row['queue']}", (str(row["queue"]),))
    for pool in pools:
        name = re.escape(pool.lower())
        bare = "-" in pool and pool.lower() not in flows and re.search(rf"{_BEGIN}{name}{_END}", found.rest)
        if bare or re.search(
            rf"{_BEGIN}{name}[- ](?:work )?(?:pool|workers?)\b|\b(?:pool|workers? (?:of|in|for|on)) {name}{_END}",
            found.rest,
        ):
            _take(found, "pool", pool, (pool,))
    for limit in limits:
        short = limit.partition(":")[2] or limit
        name = re.escape(short.lower())
        if not limit.startswith("deployment:") and re.search(
            rf"{_BEGIN}{name}(?:'s)? (?:tag |concurrency )?(?:limits?|slots?|tag)\b|\b(?:limit|tag|slots? of) {name}{_END}",
            found.rest,
        ):
            _take(found, "limit", limit, (limit, short))
    for automation in automations:
        _take(found, "automation", automation, (automation,))


def _take(found: Mentions, kind: str, key: str, written: Sequence[str]) -> None:
    for name in written:
        pattern = rf"{_BEGIN}{re.escape(name.lower())}{_END}"
        if re.search(pattern, found.rest):
            found.others.append(Named(kind=kind, key=key, name=key))
            found.rest = re.sub(pattern, HERE, found.rest, count=1)
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment's names, in parts."""

    id: str
    flow: str
    name: str
    flow_parts: tuple[str, ...]
    name_parts: tuple[str, ...]

    @classmethod
    def of(cls, row: dict[str, Any]) -> Deployment:
        """Return it from its row."""
        flow, name = str(row["flow_name"]), str(row["name"])
        return cls(id=str(row["deployment_id"]), flow=flow, name=name,
                   flow_parts=tuple(_TOKEN.findall(flow.lower())),
                   name_parts=tuple(_TOKEN.findall(name.lower())))  # fmt: skip

    def named(self) -> Named:
        """Return what it is called."""
        return Named(kind="deployment", key=self.id, name=f"{self.flow}/{self.name}")


def _whole_names(found: Mentions, known: Sequence[Deployment]) -> None:
    """Deployments that are written out as flow/name, each; else none."""
    for deployment in sorted(known, key=lambda each: -len(each.flow) - len(each.name)):
        written = f"{deployment.flow}/{deployment.name}".lower()
        if written in found.rest:
            found.deployments.append(deployment.named())
            found.rest = found.rest.replace(written, HERE, 1)


def _run_names(found: Mentions, store: Store) -> None:
    words = [word.strip(".,;:!?'\"()`") for word in found.rest.split()]
    wanted = [word for word in words if len(word) >= 4 and re.search(r"[-_.]", word)]
    if not wanted:
        return
    rows = store.rows(
        "SELECT run_id, name FROM runs WHERE lower(name) IN (SELECT unnest(?::VARCHAR[])) "
        "QUALIFY row_number() OVER (PARTITION BY name ORDER BY updated DESC, run_id) = 1",
        [wanted],
    )
    by_name = {str(row["name"]).lower(): row for row in rows}
    for word in dict.fromkeys(wanted):
        if (row := by_name.get(word)) is not None:
            found.runs.append(Named(kind="run", key=row["run_id"], name=row["name"]))
            found.rest = found.rest.replace(word, HERE, 1)


# -- parts of names


def _parts(found: Mentions, known: Sequence[Deployment]) -> None:
    """The deployments that the words fit best: whole flow names first, then rare parts, then parts with slips."""
    tokens = _TOKEN.findall(found.rest)
    df = Counter(part for each in known for part in {*each.flow_parts, *each.name_parts})
    weights = {part: math.log(1 + len(known) / n) for part, n in df.items()}
    vocabulary = [part for part in df if part not in GRAMMAR and part not in WEAK]
    meant = {token: part for token in dict.fromkeys(tokens) if (part := _part(token, df, vocabulary))}
    scored = [(score, each) for each in known if (score := _score(each, tokens, meant, weights)) > 0]
    if not scored:
        return
    best = max(score for score, _ in scored)
    chosen = [each for score, each in scored if score > best - 1e-6]
    found.deployments += [each.named() for each in chosen]
    used = {part for each in chosen for part in (*each.flow_parts, *each.name_parts)}
    found.rest = _covered(
        found.rest, {token for token, part in meant.items() if part in used} | (used & set(tokens))
    )


def _part(token: str, df: Counter[str], vocabulary: Sequence[str]) -> str:
    """The part of a name that a word of the question stands for, or an empty string."""
    if token in df:
        return token
    if token in GRAMMAR or len(token) < 4:
        return ""
    begun = [
        part for part in vocabulary if len(part) >= 4 and (part.startswith(token) or token.startswith(part))
    ]
    if begun:
        return max(begun, key=len)
    if len(token) < 5:
        return ""
    near = [part for part in vocabulary if part[0] == token[0]]  # a slip is seldom in the first letter
    return next(iter(difflib.get_close_matches(token, near, 1, 0.85)), "")


def _score(
    each: Deployment, tokens: Sequence[str], meant: dict[str, str], weights: dict[str, float]
) -> float:
    parts = {*each.flow_parts, *each.name_parts}
    whole = each.flow_parts and _contains([meant.get(token, token) for token in tokens], each.flow_parts)
    if whole and len(each.flow_parts) == 1 and each.flow_parts[0] in GRAMMAR:
        whole = False
    strong = [p for t, p in meant.items() if p in parts and p not in WEAK and (t not in GRAMMAR or whole)]
    if not strong:
        return 0.0
    weak = [p for p in meant.values() if p in parts and p in WEAK]
    exact = sum(0.1 for t, p in meant.items() if t == p and p in strong)
    return sum(weights[p] for p in {*strong}) + 0.5 * len({*weak}) + exact + (3 if whole else 0)


def _contains(tokens: Sequence[str], wanted: Sequence[str]) -> bool:
    return any(tuple(tokens[n : n + len(wanted)]) == tuple(wanted) for n in range(len(tokens)))


def _covered(text: str, used: set[str]) -> str:
    """The text with one placeholder for each stretch of words that named something."""

    def pieces() -> Iterator[str]:
        for piece in re.split(r"([a-z0-9]+)", text):
            yield HERE if piece in used and piece not in GRAMMAR else piece

    return re.sub(r"(?:\s*NAME[-_/.\s]*)+", HERE, "".join(pieces()))
