"""What people read about a proposal on an untagged deployment says why it is judged as production."""

from __future__ import annotations

import json
from pathlib import Path

from tests.console.cli_stack import cli_stack
from typer.testing import CliRunner

from pilotage.console.cli.main import app
from pilotage.console.session.cards import card_of


def test_the_card_the_story_and_policy_explain_name_the_missing_tag(tmp_path: Path) -> None:
    with cli_stack(tmp_path) as shore:
        waiting = shore.waiting()
        assert any("no `env:` tag" in reason for reason in card_of(waiting)["reasons"])
        code, said = shore.say("ada", "why", waiting["proposal_id"])
        assert (code, "it counts as production because its deployment has no `env:` tag" in said) == (0, True)
        explained = ["policy", "explain", waiting["proposal_id"], "--state-dir", str(shore.paths.root)]
        rows = json.loads(CliRunner().invoke(app, [*explained, "--json"]).stdout)
        assert any("no `env:` tag" in reason for row in rows for reason in row["again"]["reasons"])
        assert "no `env:` tag" in " ".join(CliRunner().invoke(app, explained).stdout.split())
        code, listed = shore.say("ada", "proposals")
        assert "prod for want of an env: tag" in listed
