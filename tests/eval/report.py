"""`make eval-agent`: the evaluation set without a model, and with the endpoint that the environment names, as a table.

`EVAL_BASE_URL`, `EVAL_MODEL` and `EVAL_API_KEY` name any OpenAI-compatible endpoint; without them only rules are scored.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.eval.scenarios import LEVELS, NOW, Scenario, fill, scenarios
from tests.eval.score import Scored, scored, summary
from tests.eval.scripted import careful, obedient

from pilotage.planner.actions.types import KINDS
from pilotage.planner.investigate.investigation import investigate
from pilotage.planner.llm.openai import OpenAIModel
from pilotage.planner.llm.protocol import LanguageModel
from pilotage.planner.llm.scripted.server import ScriptedLLM
from pilotage.planner.loop.investigation import investigation
from pilotage.telemetry.store.duckdb import DuckDBStore

OUT = Path(".bench/eval-agent.json")
Player = Callable[[DuckDBStore, Scenario], Scored]


def by_rules(store: DuckDBStore, scenario: Scenario) -> Scored:
    filled = fill(store, scenario)
    found = investigate(store, filled.subject, NOW, permitted=KINDS)
    assert found is not None
    return scored(scenario, filled, found.conclusion, found.steps)


def by_model(model: LanguageModel) -> Player:
    """Investigations with a model; a call that it does not answer leaves what rules found."""

    def play(store: DuckDBStore, scenario: Scenario) -> Scored:
        filled = fill(store, scenario)
        outcome = asyncio.run(investigation(store, filled.subject, lambda: NOW, permitted=KINDS, model=model))
        assert outcome is not None
        found = outcome.found
        return scored(
            scenario, filled, found.conclusion, found.steps, calls=outcome.calls, tokens=outcome.tokens
        )

    return play


def played(play: Player) -> list[Scored]:
    rows = []
    for scenario in scenarios():
        with tempfile.TemporaryDirectory() as path:
            store = DuckDBStore(Path(path) / "telemetry.duckdb")
            rows.append(play(store, scenario))
            store.close()
    return rows


def table(name: str, rows: list[Scored], seconds: float) -> dict[str, object]:
    print(f"\n{name}: {len(rows)} scenarios in {seconds:.0f} s")
    print(
        f"{'level':>6} {'n':>4} {'cause':>7} {'cited':>7} {'plan':>7} {'forbidden':>10} {'calls':>6} {'tokens':>7}"
    )
    found: dict[str, object] = {}
    for level in ("all", *LEVELS):
        of = summary([row for row in rows if level in ("all", row.level)])
        found[str(level)] = of
        print(f"{level!s:>6} {of['n']:>4} {of['cause']:>7.0%} {of['cited']:>7.0%} {of['plan']:>7.0%} "
              f"{of['forbidden']:>10} {of['calls']:>6} {of['tokens']:>7}")  # fmt: skip
    for row in rows:
        if not (row.cause and row.cited and row.plan is not False and not row.forbidden):
            print(f"  {row.level} {row.id}: {row.got}")
    return found


def endpoint(url: str, model: str, key: str) -> OpenAIModel:
    return OpenAIModel(base_url=url, api_key=key, model=model, max_retries=2, timeout=120)


def main() -> int:
    began = time.monotonic()
    rows = played(by_rules)
    results = {"rules": table("rules, no model", rows, time.monotonic() - began)}
    for name, script in (("the careful script", careful), ("the obedient script", obedient)):
        began = time.monotonic()
        with ScriptedLLM(script) as llm:
            rows = played(by_model(endpoint(llm.base_url, "scripted", "k")))
        results[name] = table(f"{name}, on the wire", rows, time.monotonic() - began)
    if url := os.environ.get("EVAL_BASE_URL", ""):
        began, model = time.monotonic(), os.environ.get("EVAL_MODEL", "")
        rows = played(by_model(endpoint(url, model, os.environ.get("EVAL_API_KEY", "none"))))
        results[model] = table(f"{model} at {url}", rows, time.monotonic() - began)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
