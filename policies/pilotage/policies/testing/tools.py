"""What authors of policy ask of a bundle: is it sound, do its tests hold, what does this policy do, what changed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.cedar.engine import policies_as_json, policies_as_text
from pilotage.policies.cedar.guardrails import guardrails_from_text
from pilotage.policies.testing.cases import CASE_NUMBERS_FILE, CASES_FILE, Prepared, answer_of, cases_in
from pilotage.policies.testing.mutation import MutationReport, mutated
from pilotage.telemetry.errors import ConfigError

_LIMIT = re.compile(r"\blimits\)?\.(\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A case that the bundle does not keep."""

    case: str
    wanted: tuple[Any, ...]
    got: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestReport:
    """What running a bundle's cases showed."""

    __test__ = False

    cases: int
    failed: tuple[Failed, ...]
    undecided: tuple[str, ...]
    """Policies that decide no case."""
    policies: int
    mutation: MutationReport | None

    @property
    def coverage(self) -> float:
        """The share of policies that decide some case."""
        return 1 - len(self.undecided) / self.policies if self.policies else 0.0

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        report: dict[str, Any] = {
            "cases": self.cases,
            "failed": [
                {"case": failed.case, "wanted": list(failed.wanted), "got": list(failed.got)}
                for failed in self.failed
            ],
            "policies": self.policies,
            "coverage": round(self.coverage, 4),
            "undecided": list(self.undecided),
        }
        if self.mutation is not None:
            report |= {
                "mutation_score": round(self.mutation.score, 4),
                "mutants": self.mutation.killed + len(self.mutation.survivors),
                "survivors": [
                    {"policy": survivor.policy_id, "change": survivor.change}
                    for survivor in self.mutation.survivors
                ],
            }
        return report


def cases_of(bundle: Bundle, path: Path | None = None) -> tuple[Prepared, ...]:
    """The cases in this file, or those that lie beside the bundle's policies. Raises ConfigError."""
    return cases_in(path or bundle.directory / CASES_FILE, bundle.guardrails)


def on_its_numbers(bundle: Bundle) -> Bundle:
    """The bundle with the numbers on which the cases in its directory rest. Raises ConfigError when they are wrong."""
    path = bundle.directory / CASE_NUMBERS_FILE
    if not path.exists():
        return bundle
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"reading {path}: {exc}; save it as UTF-8") from exc
    return replace(bundle, guardrails=guardrails_from_text(text, path))


def tested(bundle: Bundle, cases: Sequence[Prepared], *, mutants: bool) -> TestReport:
    """Whether every case holds, which policies decide none, and on demand which bent policies go unnoticed."""
    deciding: set[str] = set()
    failed: list[Failed] = []
    for case in cases:
        verdict = case.asked(bundle)
        deciding |= set(verdict.policy_ids)
        if answer_of(verdict) != case.wanted():
            failed.append(Failed(case=case.case.case, wanted=case.wanted(), got=answer_of(verdict)))
    return TestReport(
        cases=len(cases),
        failed=tuple(failed),
        undecided=tuple(sorted(set(bundle.notes) - deciding)),
        policies=len(bundle.notes),
        # against cases that do not hold, every mutant would seem to be noticed
        mutation=mutated(bundle, cases) if mutants and not failed else None,
    )


def explained(bundle: Bundle, policy_id: str, cases: Iterable[Prepared]) -> dict[str, Any]:
    """What one policy says, which guardrails it reads, and the cases that it decides. Raises ConfigError."""
    note = bundle.notes.get(policy_id)
    if note is None:
        raise ConfigError(
            f"explaining {policy_id}: no policy of {bundle.directory} has this @id; "
            f"valid are {', '.join(sorted(bundle.notes))}"
        )
    text = _texts(bundle)[policy_id]
    numbers = bundle.guardrails.limits()
    return {
        "id": policy_id,
        "effect": note.effect,
        "reason": note.reason,
        "would_change": note.would_change,
        "file": note.file,
        "guardrails": {key: numbers[key] for key in sorted(set(_LIMIT.findall(text))) if key in numbers},
        "text": text,
        "decides": [case.case.case for case in cases if policy_id in case.case.by_policies],
    }


def differences(old: Bundle, new: Bundle, cases: Iterable[Prepared]) -> dict[str, Any]:
    """What changed from one bundle to the other: policies, numbers, and the cases decided otherwise."""
    before, after = _texts(old), _texts(new)
    numbers_before = old.guardrails.model_dump(mode="json")
    numbers_after = new.guardrails.model_dump(mode="json")
    return {
        "old": old.hash,
        "new": new.hash,
        "added": sorted(set(after) - set(before)),
        "removed": sorted(set(before) - set(after)),
        "changed": sorted(key for key in set(before) & set(after) if before[key] != after[key]),
        "schema_changed": old.schema != new.schema,
        "guardrails": {
            key: {"old": numbers_before[key], "new": numbers_after[key]}
            for key in numbers_after
            if numbers_before[key] != numbers_after[key]
        },
        "cases": [
            {"case": case.case.case, "old": list(was), "new": list(is_now)}
            for case in cases
            for was, is_now in [(answer_of(case.asked(old)), answer_of(case.asked(new)))]
            if was != is_now
        ],
    }


def rewritten(old: Bundle, new: Bundle) -> dict[str, tuple[str, ...]]:
    """By the id of each policy that is not the same in both, the lines that differ: `-` of the old, `+` of the new."""
    before, after = _texts(old), _texts(new)
    return {
        key: tuple(
            line
            for line in difflib.ndiff(before.get(key, "").splitlines(), after.get(key, "").splitlines())
            if line[0] in "+-"
        )
        for key in sorted(set(before) | set(after))
        if before.get(key) != after.get(key)
    }


def _texts(bundle: Bundle) -> dict[str, str]:
    """Each policy by its id, in Cedar's own spelling, so that only meaning differs."""
    return {
        policy["annotations"]["id"]: policies_as_text([policy])
        for text in bundle.texts.values()
        for policy in policies_as_json(text)
    }
