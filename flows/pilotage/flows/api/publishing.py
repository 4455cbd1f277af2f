"""Putting policies in force: what a start begins with, and how people replace it while it runs."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.errors import refusal
from pilotage.flows.api.server import PEOPLE, READERS, Operation
from pilotage.policies.audit.ed25519 import Ed25519Signer, Ed25519Verifier
from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.gate.gate import Gate
from pilotage.policies.json_values import plain
from pilotage.policies.publishing import (
    FILE_NAME,
    Ballot,
    Candidate,
    How,
    Publication,
    Publications,
    bundle_of,
    files_to_publish,
    misfit,
    replaceable,
    seal,
    sound,
)
from pilotage.policies.refusals import refused
from pilotage.policies.testing.tools import differences
from pilotage.policies.types import Identity, Mode, Outcome, Verdict
from pilotage.telemetry.errors import ConfigError

MOST_FILES, LARGEST = 100, 1_000_000
"""Files of one bundle, and characters in one of them: a hundred times the shipped ones."""
SHORTEST_HASH = 8
"""Letters by which a bundle may be named."""


class _Files(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    files: dict[str, str] = Field(max_length=MOST_FILES)

    @field_validator("files")
    @classmethod
    def _small_and_plain(cls, files: dict[str, str]) -> dict[str, str]:
        for name, text in files.items():
            if not FILE_NAME.fullmatch(name) or len(text) > LARGEST:
                raise ValueError(f"{name[:100]!r} is no file of a bundle: a plain name, {LARGEST} characters")
        return files


def begin_with(
    ledger: Publications,
    signer: Ed25519Signer,
    configured: Bundle,
    *,
    policies: Path | None,
    guardrails: Path | None,
    now: datetime,
) -> Bundle:
    """The bundle in force at a start: what was published, or what is configured while nothing was ever done.

    `configured` is what the settings `policies` and `guardrails` name. It needs no votes while nothing was ever
    admitted, nor when it came with a newer pilotage as the one in force came with the older. Raises ConfigError
    when people must vote for it first, when nobody could ever replace it, or when what the ledger has is not
    what was signed.
    """
    last, verifier = ledger.in_force(), Ed25519Verifier(signer.public())
    shipped = policies is None and guardrails is None
    if last is not None and last.bundle == configured.hash:
        return bundle_of(last, verifier)
    trial = last is None or (last.how != "votes" and not ledger.ever_acted())
    if last is None or trial or (shipped and last.how == "shipped"):
        if why := misfit(configured):
            raise ConfigError(
                f"Starting with the policies in {configured.directory}: under them everything would be denied "
                f"({why}). Bring their schema up to that of the shipped bundle."
            )
        if not replaceable(configured):
            raise ConfigError(
                f"Starting with the policies in {configured.directory}: under them no admin could publish "
                "others. Permit the action publish_policy to admins, as the shipped bundle does."
            )
        files = files_to_publish(policies or DEFAULT_BUNDLE, guardrails)
        how: How = "shipped" if shipped else "configured"
        adopted = Publication(
            bundle=configured.hash,
            how=how,
            people=(getpass.getuser(),),
            reason="pilotage up",
            at=now,
            note="",
            files=files,
        )
        ledger.adopt_bundle(replace(adopted, note=seal(adopted, signer)))
        return configured
    known = any(row["bundle"] == configured.hash for row in ledger.published(10_000))
    if shipped or known:
        return bundle_of(last, verifier)
    named = " and ".join(str(path) for path in (policies, guardrails) if path is not None)
    raise ConfigError(
        f"Starting with {named}: these policies ({configured.hash[:12]}) were never published; "
        f"{last.bundle[:12]} is in force. Take `policies` and `guardrails` out of the settings to go on with "
        "that, and run `pilotage policy publish` with these: admins vote on them."
    )


class Publishing:
    """Answers the API's questions about which policies are in force, and swaps them when enough admins voted."""

    def __init__(
        self,
        *,
        ledger: Publications,
        gate: Gate,
        signer: Ed25519Signer,
        current_identity: Callable[[str], Identity | None],
        mode: Callable[[], Mode],
        clock: Callable[[], datetime],
        swapped: Callable[[Bundle], None] = lambda bundle: None,
    ) -> None:
        self._ledger = ledger
        self._gate = gate
        self._signer = signer
        self._standing = current_identity
        self._mode = mode
        self._clock = clock
        self._swapped = swapped
        self._one_at_a_time = asyncio.Lock()

    def table(self) -> dict[str, Operation]:
        """Every operation by name."""
        return {
            "policies": Operation(run=self.policies, roles=READERS),
            "policy_files": Operation(run=self.files, roles=PEOPLE),
            "publish_policy": Operation(run=self.publish, roles=PEOPLE, changes=True),
            "veto_policy": Operation(run=self.veto, roles=PEOPLE, changes=True),
        }

    async def policies(self, caller: Identity, limit: int = 20) -> dict[str, Any]:
        """What is in force, what is put to the vote, and what was in force before."""
        return policies_as_json(
            in_force=self._gate.bundle.hash,
            needed=self._gate.bundle.guardrails.publish_votes,
            candidate=await asyncio.to_thread(self._ledger.candidate, self._clock()),
            published=await asyncio.to_thread(self._ledger.published, limit),
        )

    async def files(self, caller: Identity, bundle: str) -> dict[str, Any]:
        """Every file of a bundle that the ledger keeps, by its hash or how that begins. See `bundle_kept`."""
        return await asyncio.to_thread(bundle_kept, self._ledger, bundle)

    async def publish(
        self,
        caller: Identity,
        files: Mapping[str, str] | None = None,
        bundle: str = "",
        reason: str = "",
    ) -> dict[str, Any]:
        """One admin's vote for a bundle: its files, or the hash of one that the ledger has.

        The first vote puts it to the vote, the last one needed puts it in force. Refused unless it compiles,
        passes lint, keeps its own cases and can be replaced again.
        """
        verdict = self._verdict(caller)
        if verdict.outcome is not Outcome.ALLOW:
            await self._vote(caller, bundle or "unread", {}, reason, verdict)
            raise self._refusal("Publishing policies", caller, verdict)
        texts = await self._texts(files, bundle)
        async with self._one_at_a_time:
            try:
                candidate = await asyncio.to_thread(sound, texts)
            except ConfigError as exc:
                bad = refused("!bad-bundle", detail=str(exc)[:500], bundle=self._gate.bundle.hash)
                await self._vote(caller, bundle or "unsound", {}, reason, bad)
                raise ApiRejection(
                    "bad-bundle", f"{exc}; what was in force stays so.", recorded=True
                ) from exc
            if bundle and candidate.hash != bundle:
                raise ApiRejection(
                    "bad-bundle",
                    f"Publishing {bundle[:12]}: these files have hash {candidate.hash[:12]}. Look at them again.",
                )
            before = self._gate.bundle
            answer = await self._vote(caller, candidate.hash, texts, reason, verdict)
            match answer:
                case Verdict():
                    why = "; ".join((*answer.reasons, *answer.would_change))
                    raise ApiRejection(
                        "vote-refused", f"Publishing {candidate.hash[:12]}: {why}.", recorded=True
                    )
                case Publication():
                    self._gate.reload(candidate)
                    self._swapped(candidate)
                case Candidate():
                    pass
        needed = before.guardrails.publish_votes
        voters = answer.people if isinstance(answer, Publication) else answer.voters
        return {
            "bundle": candidate.hash,
            "published": isinstance(answer, Publication),
            "voters": list(voters),
            "needed": needed,
            "until": answer.until.isoformat() if isinstance(answer, Candidate) else "",
            "changes": {
                key: value for key, value in differences(before, candidate, ()).items() if key != "cases"
            },
        }

    async def veto(self, caller: Identity, bundle: str, reason: str = "") -> dict[str, Any]:
        """Takes off the table what is put to the vote; one admin is enough."""
        verdict = self._verdict(caller)
        answer = await asyncio.to_thread(
            self._ledger.veto_bundle, bundle, caller.name, verdict, reason[:500], self._clock()
        )
        if isinstance(answer, Verdict):
            raise self._refusal(f"Vetoing the policies {bundle[:12]}", caller, answer)
        return {"bundle": bundle, "vetoed_by": caller.name, "voters": list(answer.voters)}

    async def _texts(self, files: Mapping[str, str] | None, bundle: str) -> Mapping[str, str]:
        if files is not None:
            return _Files.model_validate({"files": files}).files
        kept = await asyncio.to_thread(self._ledger.files_of, bundle)
        if kept is None:
            raise ApiRejection(
                "unknown-bundle",
                f"Publishing {bundle[:12]!r}: nobody published it or put it to the vote. "
                "See `pilotage policy published`.",
            )
        return kept

    async def _vote(
        self, caller: Identity, bundle: str, files: Mapping[str, str], reason: str, verdict: Verdict
    ) -> Publication | Candidate | Verdict:
        numbers = self._gate.bundle.guardrails
        ballot = Ballot(bundle=bundle, files=files, voter=caller.name, reason=reason[:500], at=self._clock())
        return await asyncio.to_thread(
            lambda: self._ledger.vote_on_bundle(
                ballot,
                verdict,
                needed=numbers.publish_votes,
                window=numbers.publish_window,
                may=self._still_may,
                seal=lambda publication: seal(publication, self._signer),
            )
        )

    def _verdict(self, caller: Identity) -> Verdict:
        return self._gate.judge_command(caller, "publish_policy", mode=self._mode(), now=self._clock())

    def _refusal(self, what: str, caller: Identity, verdict: Verdict) -> ApiRejection:
        now = self._clock()
        return refusal(what, caller, verdict, self._gate, "publish_policy", mode=self._mode(), now=now)

    def _still_may(self, name: str) -> bool:
        person = self._standing(name)
        return person is not None and self._verdict(person).outcome is Outcome.ALLOW


def bundle_kept(ledger: Publications, prefix: str) -> dict[str, Any]:
    """`{"bundle", "files"}` of the one bundle whose hash begins so. Raises ApiRejection unless it is exactly one."""
    known = ledger.kept(prefix) if len(prefix) >= SHORTEST_HASH else ()
    files = ledger.files_of(known[0]) if len(known) == 1 else None
    if files is None:
        raise ApiRejection(
            "unknown-bundle",
            f"Looking for policies {prefix[:64]!r}: {len(known) or 'none'} of those that were published or put to "
            f"the vote begin so. Give {SHORTEST_HASH} letters of the hash or more; see `pilotage policy published`.",
        )
    return {"bundle": known[0], "files": dict(files)}


def policies_as_json(
    *, in_force: str, needed: int | None, candidate: Candidate | None, published: list[dict[str, Any]]
) -> dict[str, Any]:
    """What is in force, what is put to the vote, and what was published, as plain JSON."""
    return {
        "in_force": in_force,
        "needed": needed,
        "candidate": plain(candidate),
        "published": published,
    }
