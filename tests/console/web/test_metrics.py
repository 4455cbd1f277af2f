"""What monitoring asks is answered: every measure in Prometheus' format, and probes with their reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.console.console_stack import ConsoleStack

from pilotage.flows.api.measures import MEASURES
from pilotage.telemetry.facts import RunFact, StateType
from pilotage.telemetry.forecasts import Forecast


def scraped(port: ConsoleStack, name: str = "vic") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scraper reads, by name and labels."""
    with port.client(name) as client:
        reply = client.get("/metrics")
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def test_measures_take_the_token_of_somebody_who_may_read(port: ConsoleStack) -> None:
    with port.client() as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert scraped(port, "vic")[("pilotage_stopped", ())] == 0


def test_what_is_decided_and_done_is_counted_once_and_only_what_is_new_is_read(
    port: ConsoleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    entries = port.ledger.entries

    def counted(after: int, limit: int) -> list[dict[str, Any]]:
        rows = entries(after, limit)
        read.append(len(rows))
        return rows

    waiting = port.proposal(port.failed_run())
    monkeypatch.setattr(port.ledger, "entries", counted)
    first = scraped(port)
    assert first[("pilotage_verdicts_total", (("outcome", "needs_approval"), ("stage", "judge")))] == 1
    assert first[("pilotage_proposals", (("status", "needs_approval"),))] == 1
    assert first[("pilotage_incidents_open", ())] == 1
    assert first[("pilotage_unresolved_failures", (("deployment", "etl/nightly"),))] == 1
    read.clear()
    assert scraped(port)[("pilotage_audit_entries_total", ())] == first[("pilotage_audit_entries_total", ())]
    assert read == [0]
    port.control_api("ann").call(
        "vote", proposal_id=waiting["proposal_id"], digest=waiting["digest"], decision="approve"
    )
    assert scraped(port)[("pilotage_outbox_waiting", ())] == 0
    port.work()
    after = scraped(port)
    assert after[("pilotage_deliveries_total", (("effect", "done"),))] == 1
    assert after[("pilotage_outcomes_total", (("judgement", "verified"),))] == 1
    assert after[("pilotage_verdicts_total", (("outcome", "allow"), ("stage", "admit")))] == 1


def test_lateness_depth_and_forecast_come_from_telemetry(port: ConsoleStack) -> None:
    now = datetime.now(UTC)
    port.store.merge_runs(
        [
            RunFact(
                run_id=f"late-{minutes}", name="r", flow_name="etl", state_type=StateType.SCHEDULED,
                state_name="Late", state_id="s", pool="kube", queue="high", next_start=now - timedelta(minutes=minutes),
                created=now, updated=now,
            )
            for minutes in (5, 20)
        ]
    )  # fmt: skip
    port.store.add_forecasts(
        [
            Forecast(
                run_id="late-5", made_at=now - timedelta(minutes=2), p_fail=0.9, model="prior", trained_on=0
            )
        ]
    )
    values = scraped(port)
    where = (("pool", "kube"), ("queue", "high"))
    assert values[("pilotage_queue_depth", where)] == 2
    assert 1195 < values[("pilotage_lateness_seconds", where)] < 1300
    assert values[("pilotage_runs_unfinished", (("state", "SCHEDULED"),))] == 2
    assert 115 < values[("pilotage_forecast_age_seconds", ())] < 200
    assert ("pilotage_forecast_brier", ()) not in values, "nothing has ended yet"
    run = RunFact(
        run_id="late-5", name="r", flow_name="etl", state_type=StateType.COMPLETED, state_name="Completed",
        state_id="s2", ended=now, created=now, updated=now + timedelta(seconds=1),
    )  # fmt: skip
    port.store.merge_runs([run])
    port.store.score_forecasts(now)
    values = scraped(port)
    assert values[("pilotage_forecast_brier", ())] == pytest.approx(0.81)
    assert values[("pilotage_forecast_calibration_error", ())] == pytest.approx(0.9)


def test_the_age_of_what_is_known_and_the_requests_are_told(port: ConsoleStack) -> None:
    port.collector.watermark = datetime.now(UTC) - timedelta(minutes=3)
    port.collector.answers.note(0.25)
    port.collector.answers.note(0.5, "HTTP 503")
    values = scraped(port)
    assert 179 < values[("pilotage_collector_watermark_age_seconds", ())] < 240
    assert values[("pilotage_prefect_requests_total", (("by", "collector"),))] == 2
    assert values[("pilotage_prefect_request_failures_total", (("by", "collector"),))] == 1
    assert values[("pilotage_prefect_request_seconds_total", (("by", "collector"),))] == 0.75
    assert values[("pilotage_process_resident_bytes", (("process", "controller"),))] > 10_000_000
    assert values[("pilotage_file_bytes", (("file", "ledger.sqlite"),))] > 0


def test_no_measure_is_sent_that_is_not_described(port: ConsoleStack) -> None:
    described = {measure.name: measure.labels for measure in MEASURES}
    for name, labels in scraped(port):
        assert tuple(sorted(described[name])) == tuple(key for key, _ in labels), name


def test_a_probe_needs_no_token_and_names_nothing_of_the_site(port: ConsoleStack) -> None:
    with port.client() as client:
        assert client.get("/livez").json() == {"status": "ok"}
        reply = client.get("/readyz")
        assert (reply.status_code, reply.json()) == (200, {"status": "ok", "reasons": []})
        port.health |= {
            "connected": False,
            "stands_still": "everything is read up to 12:00 and no further: secret-host refused",
        }
        reply = client.get("/readyz")
        assert reply.status_code == 503
        assert reply.json()["reasons"] == [
            "Prefect's event stream does not stand",
            "what is read from Prefect is older than two minutes",
        ]
        port.paths.api_socket.unlink()
        reply = client.get("/readyz")
        assert (reply.status_code, reply.json()["reasons"]) == (503, ["the controller does not answer"])
        assert client.get("/livez").status_code == 200
