"""What is written about the levers is drawn from them."""

from __future__ import annotations

from pilotage.flows.levers.docs import README, as_markdown
from pilotage.flows.notify.describe import action_in_words
from pilotage.planner.actions.types import KINDS


def test_the_readme_of_the_levers_says_what_the_levers_say() -> None:
    # if it does not: python -m pilotage.flows.levers.docs
    assert README.read_text() == as_markdown()


def test_every_kind_of_action_is_documented_and_has_words() -> None:
    text = as_markdown()
    for kind in KINDS:
        assert f"| `{kind}` |" in text
        assert action_in_words({"kind": kind}) != kind
