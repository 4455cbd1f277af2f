"""A bundle of another version is asked with the facts that its schema declares, and with every argument."""

from __future__ import annotations

import re
from pathlib import Path

import cedarpy
import pytest

from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, Bundle
from pilotage.policies.cedar.declared import declared_in
from pilotage.policies.publishing import files_to_publish, misfit
from pilotage.policies.testing.cases import cases_from_text

SHIPPED = (DEFAULT_BUNDLE / "schema.cedarschema").read_text()
FILES = files_to_publish(DEFAULT_BUNDLE, None)


def without(*facts: str) -> Bundle:
    """The shipped bundle as if these facts had never been thought of: gone from its schema and from its policies."""
    files = dict(FILES)
    for fact in facts:
        files["schema.cedarschema"] = re.sub(rf"(?m)^\s*{fact}: .*\n", "", files["schema.cedarschema"])
        files = {name: text for name, text in files.items() if not _reads(name, text, fact)}
    return Bundle.of(files, Path("an older one"))


def _reads(name: str, text: str, fact: str) -> bool:
    return name.endswith(".cedar") and f".{fact}" in text


def test_what_cedar_prints_and_what_people_write_declare_the_same() -> None:
    printed = declared_in(str(cedarpy.Schema.from_str(SHIPPED)))
    assert printed.attributes["Run"] >= {"state", "half_done", "repeatable", "death"}
    assert len(printed.worlds) == 28
    world = printed.worlds["retry_run"]
    assert isinstance(world, dict)
    assert isinstance(world["budget"], dict)
    assert world["budget"]["actions_1h"] == "Long"


def test_optional_attributes_annotations_and_sets_are_read() -> None:
    schema = """namespace Pilotage {
      type World = { @doc("a; b {") mode?: String, seen: Set<Long> };
      entity Run { "odd name": Bool, within: { deep: Long } };
      entity Agent;
      action a, b appliesTo { principal: [Agent], resource: [Run], context: { args: {}, world: World } };
    }"""
    declared = declared_in(str(cedarpy.Schema.from_str(schema)))
    assert declared.attributes["Run"] == {"odd name", "within"}
    assert declared.worlds == {action: {"mode": "String", "seen": "Set"} for action in "ab"}
    asked = {"args": {"x": 1}, "world": {"mode": "auto", "seen": [1], "newer": {"y": 2}}}
    assert declared.of_context("a", asked) == {"args": {"x": 1}, "world": {"mode": "auto", "seen": [1]}}


@pytest.mark.parametrize("facts", [("half_done",), ("repeatable", "half_done"), ("forecast_actions_1h",)])
def test_an_older_bundle_without_newer_facts_decides_as_it_did(facts: tuple[str, ...]) -> None:
    assert misfit(without(*facts)) == ""


def test_an_argument_that_a_schema_does_not_know_is_a_denial() -> None:
    files = {**FILES, "schema.cedarschema": SHIPPED.replace("args: { delay: Long }", "args: {}")}
    bundle = Bundle.of(files, Path("an older one"))
    (sample,) = cases_from_text(
        "- {case: sample, outcome: deny, by_policies: []}", Path("sample"), bundle.guardrails
    )
    assert sample.asked(bundle).policy_ids == ("!evaluation-error",)
