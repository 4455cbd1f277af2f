"""Cedar's public conformance corpus, put to the engine as we use it: `make conformance CORPUS=path`.

It is how another version of Cedar is accepted. The corpus is not part of this repository: it is the
`corpus-tests.tar.gz` of Cedar's integration tests, or the directory of a checkout of them. Each test names a
schema, policies and entities, says whether the policies validate, and asks questions whose decision, deciding
policies and failing policies are known. Every question is asked of all policies, and of those alone whose head
can match it, as the gate does.

A checkout of Cedar's examples may be named too: folders with `policies.cedar`, `entities.json` and requests below `ALLOW`
and `DENY`, of which only the decision is known.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cedarpy

from pilotage.policies.cedar.engine import ScopedPolicies, policies_as_text, static_policies

SHOWN = 20
"""Failures that are printed; all are counted."""
_FAILED_POLICY = re.compile(r"policy `([^`]*)`")
USAGE = "Name it: make conformance CORPUS=corpus-tests.tar.gz, or the directory of Cedar's integration tests."


@dataclass(slots=True, kw_only=True)
class Report:
    """What the run found."""

    tests: int = 0
    requests: int = 0
    unspecified: int = 0
    """Requests of old corpora that leave a principal, action or resource open; this Cedar has no such thing."""
    templates: int = 0
    """Examples whose policies are templates; ours are not."""
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield from self.wrong[:SHOWN]
        if len(self.wrong) > SHOWN:
            yield f"and {len(self.wrong) - SHOWN} more"
        left = f", {self.unspecified} with unspecified entities left out" if self.unspecified else ""
        left += f", {self.templates} examples of templates left out" if self.templates else ""
        yield (
            f"cedarpy: {self.tests} tests, {self.requests} requests{left}; "
            f"{len(self.wrong) or 'none'} answered otherwise"
        )


def tests_in(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every test file below a directory with what it says; other JSON files are passed over."""
    for path in sorted(root.rglob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(told, dict) and "policies" in told and ("requests" in told or "queries" in told):
            yield path, told


def conformance(root: Path) -> Report:
    """The report over all tests below a directory. Raises FileNotFoundError for a test whose files are missing."""
    report = Report()
    for path, told in tests_in(root):
        report.tests += 1
        _one_test(path, told, root, report)
    for folder in sorted({each.parent for each in root.rglob("ALLOW") if each.is_dir()}):
        _one_example(folder, report)
    return report


def _one_example(folder: Path, report: Report) -> None:
    text = _named("policies.cedar", folder / "static" / "x", folder)
    if "?principal" in text or "?resource" in text or (folder / "linked").exists():
        report.templates += 1
        return
    report.tests += 1
    schema = cedarpy.Schema.from_str(_named("policies.cedarschema", folder / "static" / "x", folder))
    if not cedarpy.validate_policies(text, schema).validation_passed:
        report.wrong.append(f"{folder.name}: policies do not validate")
    whole = cedarpy.PolicySet.from_str(text)
    scoped = ScopedPolicies(static_policies(text), schema)
    entities = cedarpy.Entities.from_json_str((folder / "entities.json").read_text(encoding="utf-8"), schema)
    for path in sorted([*folder.glob("ALLOW/*.json"), *folder.glob("DENY/*.json")]):
        report.requests += 1
        told = json.loads(path.read_text(encoding="utf-8"))
        asked = {part: _uid(told[part]) for part in ("principal", "action", "resource")}
        action = (asked["action"]["type"], asked["action"]["id"])
        narrow = scoped.applicable(asked["principal"]["type"], action, asked["resource"]["type"])
        asked["context"] = told.get("context") or {}
        for how, policies in (("all policies", whole), ("those that can match", narrow)):
            found = cedarpy.is_authorized(asked, policies, entities, schema)
            if found.decision.value.upper() != path.parent.name or found.diagnostics.errors:
                name = f"{folder.name}: {path.stem}"
                report.wrong.append(f"{name}: {how} say {found.decision.value}, not {path.parent.name}")


def _uid(written: str) -> dict[str, Any]:
    kind, _, name = written.partition('::"')
    return {"type": kind, "id": name.removesuffix('"')}


def _one_test(path: Path, told: Mapping[str, Any], root: Path, report: Report) -> None:
    schema_text = _named(told["schema"], path, root)
    in_json = told.get("schemaFormat") == "json"
    schema = (cedarpy.Schema.from_json_str if in_json else cedarpy.Schema.from_str)(schema_text)
    text = _named(told["policies"], path, root)
    if told.get("policyFormat") == "json":
        text = policies_as_text(list(json.loads(text)["staticPolicies"].values()))
    valid = bool(cedarpy.validate_policies(text, schema).validation_passed)
    if "shouldValidate" in told and valid is not told["shouldValidate"]:
        report.wrong.append(f"{path.name}: policies validate: {valid}, the corpus says {not valid}")
    whole = cedarpy.PolicySet.from_str(text)
    scoped = ScopedPolicies(static_policies(text), schema)
    entities = cedarpy.Entities.from_json_str(_named(told["entities"], path, root), schema)
    for number, request in enumerate(told.get("requests") or told["queries"]):
        report.requests += 1
        if any(request.get(part) is None for part in ("principal", "action", "resource")):
            report.unspecified += 1
            continue
        asked = {part: request[part] for part in ("principal", "action", "resource")}
        asked["context"] = request.get("context") or {}
        checked = schema if request.get("validateRequest", True) else None
        wanted = _wanted(request)
        action = (asked["action"]["type"], asked["action"]["id"])
        narrow = scoped.applicable(asked["principal"]["type"], action, asked["resource"]["type"])
        for how, policies in (("all policies", whole), ("those that can match", narrow)):
            found = _found(cedarpy.is_authorized(asked, policies, entities, checked))
            if found != wanted:
                name = request.get("description") or f"request {number}"
                report.wrong.append(f"{path.name}: {name}: {how} say {found}, the corpus says {wanted}")


Answer = tuple[str, list[str], list[str]]
"""Decision, deciding policies, failing policies; each list in order."""


def _wanted(request: Mapping[str, Any]) -> Answer:
    reasons = request["reason"] if "reason" in request else request["reasons"]
    return str(request["decision"]).capitalize(), sorted(reasons), sorted(request["errors"])


def _found(result: Any) -> Answer:
    told = result.diagnostics
    failed = [_FAILED_POLICY.search(str(error)) for error in told.errors]
    errors = sorted(match[1] if match else "?" for match in failed)
    return result.decision.value, sorted(told.reasons), errors


def _named(name: str, test: Path, root: Path) -> str:
    """The file that a test names: from the root of the corpus, or from where the test itself lies."""
    for base in (root, root.parent, *test.parents):
        if (base / name).is_file():
            return (base / name).read_text(encoding="utf-8")
    raise FileNotFoundError(f"{test.name} names {name}, which is not below {root}")


def main(arguments: list[str]) -> int:
    """0 when every answer is the expected one, 1 when one is not, 2 when there is no corpus."""
    if len(arguments) != 1:
        print(f"No corpus is named. {USAGE}", file=sys.stderr)
        return 2
    corpus = Path(arguments[0])
    if not corpus.exists():
        print(f"Reading the corpus {corpus}: there is no such file or directory. {USAGE}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        root = corpus
        if corpus.is_file():
            try:
                with tarfile.open(corpus) as archive:
                    archive.extractall(folder, filter="data")
            except tarfile.TarError as exc:
                print(f"Reading the corpus {corpus}: it is no tar archive ({exc}). {USAGE}", file=sys.stderr)
                return 2
            root = Path(folder)
        try:
            report = conformance(root)
        except (OSError, ValueError, KeyError) as exc:
            print(f"Reading the corpus {corpus}: {exc}. {USAGE}", file=sys.stderr)
            return 2
    if not report.tests:
        print(f"Reading the corpus {corpus}: no test is in it. {USAGE}", file=sys.stderr)
        return 2
    print("\n".join(report.lines()))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
