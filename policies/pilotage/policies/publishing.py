"""Which policies are in force, and by whose word: what was published, what is put to the vote, what is signed.

A bundle is kept whole in the ledger under its hash, so what is in force does not depend on a directory that
somebody edits. Another bundle takes the votes of several admins, each on the exact hash; the row that puts it
in force is signed, and a row that nobody signed puts nothing in force.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from pilotage.policies.audit.signing import Signer, Verifier, sealed, unsealed
from pilotage.policies.cedar.bundle import GUARDRAILS_FILE, Bundle, hash_of, texts_in
from pilotage.policies.gate.gate import Gate
from pilotage.policies.json_values import timestamp
from pilotage.policies.roles import Role
from pilotage.policies.testing.cases import CASE_NUMBERS_FILE, CASES_FILE, cases_among, cases_from_text
from pilotage.policies.testing.tools import tested
from pilotage.policies.types import Identity, Mode, Outcome, Verdict
from pilotage.telemetry.errors import ConfigError

FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
"""What a file of a bundle may be called: a plain name, which is no path and not hidden."""

How = Literal["shipped", "configured", "votes"]
"""Came with pilotage; named in the settings before anything was ever done; voted for by people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A bundle that is put to the vote. There is at most one."""

    bundle: str
    """Its hash; every vote is on exactly this."""
    by: str
    """Who put it to the vote, which is the first vote."""
    reason: str
    at: datetime
    until: datetime
    """When it lapses unless enough people voted."""
    voters: tuple[str, ...]
    """Who voted for it, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A bundle that was put in force."""

    bundle: str
    how: How
    people: tuple[str, ...]
    """Whose votes it took; whoever started `pilotage up` when it took none."""
    reason: str
    at: datetime
    note: str
    """The signed note over all of that."""
    files: Mapping[str, str]
    """Every file of the bundle by its name, its cases too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """One person's word for one bundle."""

    bundle: str
    files: Mapping[str, str]
    voter: str
    reason: str
    at: datetime


class Publications(Protocol):
    """The part of the ledger that keeps bundles. Every call that changes something also writes to the audit log."""

    def in_force(self) -> Publication | None:
        """What was published last, or None in a new installation. The caller checks its note."""
        ...

    def published(self, limit: int) -> list[dict[str, Any]]:
        """The newest publications as plain JSON, without their files."""
        ...

    def files_of(self, bundle: str) -> Mapping[str, str] | None:
        """The files of a bundle that was published or put to the vote."""
        ...

    def kept(self, prefix: str) -> tuple[str, ...]:
        """The hashes, two at most, of bundles published or put to the vote that begin so."""
        ...

    def candidate(self, now: datetime) -> Candidate | None:
        """What is put to the vote now."""
        ...

    def vote_on_bundle(
        self,
        ballot: Ballot,
        verdict: Verdict,
        *,
        needed: int,
        window: timedelta,
        may: Callable[[str], bool],
        seal: Callable[[Publication], str],
    ) -> Publication | Candidate | Verdict:
        """The publication when this vote was the last one needed, the candidate while more are, or the refusal."""
        ...

    def veto_bundle(
        self, bundle: str, voter: str, verdict: Verdict, reason: str, at: datetime
    ) -> Candidate | Verdict:
        """What was put to the vote and is no more, or the refusal."""
        ...

    def adopt_bundle(self, publication: Publication) -> None:
        """Puts a bundle in force that takes no votes."""
        ...

    def lapse_bundle(self, now: datetime) -> str:
        """The hash of the candidate whose time ran out already, or empty; told once."""
        ...

    def ever_acted(self) -> bool:
        """Whether anything was ever admitted."""
        ...


def statement(publication: Publication) -> str:
    """What is signed: which bundle, since when, how, and by whose word."""
    people = ", ".join(publication.people)
    return (
        f"pilotage policies\n{publication.bundle}\nat {timestamp(publication.at)}\n"
        f"by {publication.how}\nof {people}\n"
    )


def seal(publication: Publication, signer: Signer) -> str:
    """The signed note of this publication."""
    return sealed(statement(publication), signer)


def bundle_of(publication: Publication, verifier: Verifier) -> Bundle:
    """The bundle that was published. Raises ConfigError when the row is not what was signed, or cannot be compiled."""
    attempt = f"loading the published policies {publication.bundle[:12]}"
    try:
        honest = unsealed(publication.note, verifier) == statement(publication)
        why = "" if honest else "the row is not what was signed"
    except ValueError as exc:
        why = f"its note {exc}"
    if why:
        raise ConfigError(f"{attempt}: {why}; find out who wrote to the ledger, and restore it")
    bundle = Bundle.of(publication.files, Path(f"published {publication.bundle[:12]}"))
    if bundle.hash != publication.bundle:
        raise ConfigError(f"{attempt}: the files have hash {bundle.hash[:12]}; restore the ledger")
    return bundle


def files_to_publish(directory: Path, guardrails: Path | None) -> dict[str, str]:
    """The files of the bundle in this directory with its cases. Raises ConfigError when one cannot be read.

    With `guardrails` in place of its own numbers, the cases go on resting on its own.
    """
    files = texts_in(directory, guardrails)
    for beside in (directory / CASES_FILE, directory / CASE_NUMBERS_FILE):
        try:
            if beside.exists():
                files[beside.name] = beside.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"reading cases {beside}: {exc}; save it as UTF-8") from exc
    if guardrails is not None:
        files.setdefault(CASE_NUMBERS_FILE, texts_in(directory).get(GUARDRAILS_FILE, ""))
    return files


def renumbered(files: Mapping[str, str], guardrails: Path | None) -> dict[str, str]:
    """The files with this one in place of their numbers. Raises ConfigError when it cannot be read."""
    if guardrails is None:
        return dict(files)
    try:
        return {**files, GUARDRAILS_FILE: guardrails.read_bytes().decode()}
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"loading guardrails from {guardrails}: {exc}; name a UTF-8 file that can be read"
        ) from exc


def laid_out(files: Mapping[str, str], bundle: str, directory: Path) -> tuple[str, ...]:
    """The names of the files that were written into this new or empty directory, which is that bundle then.

    Raises ConfigError when the files are not of that hash, one is called as none of a bundle's may be, the
    directory has something in it, or what stands in it afterwards is something else.
    """
    attempt = f"laying out policies {bundle[:12]} in {directory}"
    if hash_of(files) != bundle:
        raise ConfigError(f"{attempt}: the files have hash {hash_of(files)[:12]}; restore the ledger")
    if strange := [name for name in files if not FILE_NAME.fullmatch(name)]:
        raise ConfigError(f"{attempt}: {strange[0]!r} is no name of a file of a bundle; nothing was written")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigError(f"{attempt}: something is there already; name an empty or new directory")
        for name, text in files.items():
            with (directory / name).open("xb") as file:
                file.write(text.encode())
    except OSError as exc:
        raise ConfigError(f"{attempt}: {exc}; name a directory that can be written") from exc
    if hash_of(texts_in(directory)) != bundle:
        raise ConfigError(f"{attempt}: what stands there is something else; find out who writes to it")
    return tuple(sorted(files))


def sound(files: Mapping[str, str]) -> Bundle:
    """The bundle of these files, which compiles, keeps its own cases and can be replaced again.

    Raises ConfigError saying all that is wrong. Pure, and takes about a second: run it in a thread.
    """
    where = Path("the candidate")
    bundle = Bundle.of(files, where)
    cases, numbers = cases_among(files, where, bundle.guardrails)
    report = tested(replace(bundle, guardrails=numbers), cases, mutants=False)
    if report.failed:
        failures = "; ".join(
            f"{failed.case}: wanted {failed.wanted}, got {failed.got}" for failed in report.failed[:5]
        )
        raise ConfigError(
            f"publishing policies: {len(report.failed)} of {report.cases} cases do not hold: {failures}"
        )
    if why := misfit(bundle):
        raise ConfigError(f"publishing policies: under these everything would be denied: {why}")
    if not replaceable(bundle):
        raise ConfigError(
            "publishing policies: under these no admin could publish others; permit the action "
            "publish_policy to admins, as the shipped bundle does"
        )
    return bundle


def misfit(bundle: Bundle) -> str:
    """Why this version of pilotage cannot ask the bundle anything, or empty: a schema of another version denies all."""
    (sample,) = cases_from_text(
        "- {case: sample, outcome: deny, by_policies: []}", Path("sample"), bundle.guardrails
    )
    verdict = sample.asked(bundle)
    return "; ".join(verdict.errors) if verdict.policy_ids == ("!evaluation-error",) else ""


def replaceable(bundle: Bundle) -> bool:
    """Whether an admin could vote for another bundle while this one is in force."""
    admin = Identity(name="somebody", kind="user", roles=frozenset({Role.ADMIN.value}))
    moment = datetime.fromtimestamp(0).astimezone()
    verdict = Gate(bundle).judge_command(admin, "publish_policy", mode=Mode.SHADOW, now=moment)
    return verdict.outcome is Outcome.ALLOW
