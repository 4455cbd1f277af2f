"""The dashboard and the alert rules that are shipped name measures that there are, and say what Prometheus understands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotage.flows.api.measures import MEASURES

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
BOARD: dict[str, Any] = json.loads((MONITORING / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
RULES: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
QUERIES = [
    *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
    *((note["name"], note["expr"]) for note in BOARD["annotations"]["list"]),
    *((rule["alert"], rule["expr"]) for rule in RULES),
]
PROMTOOL = shutil.which("promtool") or ""
NEEDS_PROMTOOL = pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed (Debian: prometheus)")


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_each_query_names_measures_and_labels_that_there_are(title: str, query: str) -> None:
    known = {measure.name: measure for measure in MEASURES}
    named = re.findall(r"pilotage_\w+", query)
    assert named
    assert set(named) <= known.keys()
    labels = {label for name in named for label in known[name].labels}
    used = set(re.findall(r"(\w+)\s*=~?\"", query))
    for group in re.findall(r"by \(([^)]*)\)", query):
        used |= {label.strip() for label in group.split(",")}
    assert used <= labels


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_only_counters_are_asked_for_their_growth(title: str, query: str) -> None:
    counters = {measure.name for measure in MEASURES if measure.kind == "counter"}
    for name in re.findall(r"(?:rate|increase)\((\w+)", query):
        assert name in counters


def test_every_measure_is_on_the_dashboard() -> None:
    shown = " ".join(query for _, query in QUERIES)
    assert [measure.name for measure in MEASURES if measure.name not in shown] == []


def test_the_dashboard_loads() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= BOARD.keys()
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    sources = {each["name"] for each in BOARD["templating"]["list"] if each["type"] == "datasource"}
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, f"{panel['title']} covers another panel"
        taken |= cells
    for panel in PANELS:
        assert panel["datasource"]["uid"] in {f"${{{name}}}" for name in sources}
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= set(re.findall(r"\w+", target["expr"])), panel["title"]


def test_each_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


@NEEDS_PROMTOOL
def test_prometheus_accepts_every_query_and_every_rule_fires_when_it_should(tmp_path: Path) -> None:
    asked = [{"record": f"q:{number}", "expr": query} for number, (_, query) in enumerate(QUERIES)]
    queries = tmp_path / "queries.yml"
    queries.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": asked}]}))
    for arguments in (
        ["check", "rules", str(queries)],
        ["check", "rules", str(MONITORING / "alerts.yml")],
        ["test", "rules", str(MONITORING / "alerts_test.yml")],
    ):
        said = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout + said.stderr
