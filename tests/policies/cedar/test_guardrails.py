"""The operator's numbers: local time, windows that come back, lists, and a file that shows every default."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pilotage.policies.cedar.bundle import DEFAULT_BUNDLE, GUARDRAILS_FILE
from pilotage.policies.cedar.calendar import clock_facts
from pilotage.policies.cedar.guardrails import Guardrails, guardrails_from_text
from pilotage.policies.types import Mode
from pilotage.telemetry.errors import ConfigError


def numbers(text: str) -> Guardrails:
    return guardrails_from_text(text, Path("guardrails.yaml"))


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    text = (DEFAULT_BUNDLE / GUARDRAILS_FILE).read_text()
    assert numbers(text) == Guardrails()
    assert set(yaml.safe_load(text)) == set(Guardrails.model_fields)


# Berlin is one hour ahead of UTC in winter and two in summer; the clock jumps on Sunday 2027-03-28 at 02:00
WEEKENDS = {
    "Friday afternoon, a minute before": ("2027-03-05T14:59:59Z", False),
    "Friday afternoon": ("2027-03-05T15:00:00Z", True),
    "Sunday night": ("2027-03-07T23:30:00Z", True),
    "Monday morning, a minute before": ("2027-03-08T04:59:59Z", True),
    "Monday morning": ("2027-03-08T05:00:00Z", False),
    "Wednesday": ("2027-03-10T12:00:00Z", False),
    "Monday morning after the clock jumped": ("2027-03-29T04:00:00Z", False),
    "a minute before that": ("2027-03-29T03:59:59Z", True),
}


@pytest.mark.parametrize(("at", "frozen"), WEEKENDS.values(), ids=WEEKENDS.keys())
def test_a_weekly_freeze_goes_by_the_local_clock(at: str, frozen: bool) -> None:
    ours = numbers('weekly_freeze: ["Fri 16:00 to Mon 06:00"]\ntime_zone: Europe/Berlin')
    assert ours.frozen_at(datetime.fromisoformat(at)) is frozen


def test_a_window_within_one_week_does_not_wrap() -> None:
    ours = numbers('weekly_freeze: ["Tue 09:00 to Tue 10:00"]')
    inside = [ours.frozen_at(datetime(2027, 3, day, 9, 30, tzinfo=UTC)) for day in range(1, 8)]
    assert inside == [False, True, False, False, False, False, False]


def test_the_clock_facts_are_local() -> None:
    late_on_sunday = datetime(2027, 3, 7, 23, 30, tzinfo=UTC)
    assert clock_facts(late_on_sunday, "Asia/Kolkata") == {
        "weekday": 1,
        "minute_of_day": 5 * 60,
        "utc_offset_minutes": 330,
    }
    assert clock_facts(late_on_sunday, "UTC") == {
        "weekday": 7,
        "minute_of_day": 23 * 60 + 30,
        "utc_offset_minutes": 0,
    }


BAD = {
    "no such zone": ("time_zone: Mars/Base", "`time_zone` is 'Mars/Base'.*IANA"),
    "a zone that is a path": ("time_zone: ../../etc/passwd", "`time_zone`"),
    "no window": ('weekly_freeze: ["weekends"]', "Fri 16:00 to Mon 06:00"),
    "a window of no time": ('weekly_freeze: ["Fri 16:00 to Fri 16:00"]', "two different times"),
    "an hour that is none": ('weekly_freeze: ["Fri 24:00 to Mon 06:00"]', "Fri 16:00 to Mon 06:00"),
    "no such action": ("allowed_actions: [reboot]", "`allowed_actions.0` is 'reboot'"),
    "a threshold nobody passes": ("autonomy_threshold: 101", "`autonomy_threshold`"),
}


@pytest.mark.parametrize(("text", "complaint"), BAD.values(), ids=BAD.keys())
def test_a_bad_number_names_its_key_and_what_is_valid(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        numbers(text)


def test_names_are_listed_by_pattern_and_case_counts() -> None:
    ours = numbers('allowed_deployments: ["etl/*", "pay/out"]\nallowed_queues: ["pool/night-?"]')
    listed = {name: ours.lists_deployment(name) for name in ("etl/a", "pay/out", "pay/in", "ETL/a", "")}
    assert listed == {"etl/a": True, "pay/out": True, "pay/in": False, "ETL/a": False, "": False}
    assert [ours.lists_queue("pool", queue) for queue in ("night-1", "night-10")] == [True, False]


def test_values_are_listed_by_deployment_name_and_value() -> None:
    ours = numbers('allowed_parameters: ["etl/*: day", "etl/*: region=eu-*", "pay/out: dry_run=true"]')
    asked: dict[tuple[str, str, object], bool] = {
        ("etl/a", "day", 7): True,
        ("etl/a", "day", "x=y\nz"): True,
        ("pay/out", "day", 7): False,
        ("etl/a", "region", "eu-1"): True,
        ("etl/a", "region", "us-1"): False,
        ("etl/a", "regional", "eu-1"): False,
        ("pay/out", "dry_run", True): True,
        ("pay/out", "dry_run", False): False,
        ("", "day", 7): False,
    }
    assert {one: ours.lists_parameter(*one) for one in asked} == asked
    assert numbers("{}").lists_parameter("", "anything", {"a": [1]})
    with pytest.raises(ConfigError, match="allowed_parameters"):
        numbers('allowed_parameters: ["day"]')


def test_the_strictest_mode_that_fits_holds() -> None:
    ours = numbers('modes: ["etl/*: *=approve", "etl/secret: retry_run=shadow", "*: cancel_*=observe"]')
    asked = {
        ("etl/a", "retry_run"): Mode.APPROVE,
        ("etl/secret", "retry_run"): Mode.SHADOW,
        ("etl/secret", "resize_run"): Mode.APPROVE,
        ("pay/out", "retry_run"): Mode.AUTO,
        ("pay/out", "cancel_run"): Mode.OBSERVE,
        ("", "retry_run"): Mode.AUTO,
    }
    found = {one: ours.mode_for(Mode.AUTO, (one[1],), one[0]) for one in asked}
    assert found == asked
    assert ours.mode_for(Mode.SHADOW, ("retry_run",), "etl/a") is Mode.SHADOW
    assert ours.mode_for(Mode.AUTO, ("change_parameters", "cancel_run"), "pay/out") is Mode.OBSERVE
    for wrong in ('["etl"]', '["etl/*: x"]', '["etl/*: x=off"]'):
        with pytest.raises(ConfigError, match="modes"):
            numbers(f"modes: {wrong}")


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    text = "resume_votes: 1\npublish_votes: 1\nresume_votes: 2\n"
    with pytest.raises(ConfigError, match="'resume_votes' stands twice"):
        guardrails_from_text(text, tmp_path / "guardrails.yaml")
