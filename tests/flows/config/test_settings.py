"""One table of precedence, and plain words for what is wrong in it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from pilotage.flows.config.paths import paths
from pilotage.flows.config.settings import Settings, load_settings
from pilotage.policies.types import Mode
from pilotage.telemetry.errors import ConfigError


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PILOTAGE_STATE_DIR", "PILOTAGE_MODE", "PILOTAGE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PILOTAGE_CONFIG", "")  # restored when the test ends, whatever load_settings sets


def test_the_mode_is_kept_unless_a_start_is_given_one() -> None:
    assert load_settings().mode is None


def test_flags_win_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pilotage.toml").write_text(
        'mode = "observe"\n[retention]\nevents = "P3D"\n[loop]\ntick = "PT7S"\n'
    )
    assert load_settings().mode is Mode.OBSERVE
    assert load_settings().loop.tick == timedelta(seconds=7)
    monkeypatch.setenv("PILOTAGE_MODE", "approve")
    assert load_settings().mode is Mode.APPROVE
    assert load_settings(mode="auto").mode is Mode.AUTO
    assert load_settings(mode="auto").retention.events == timedelta(days=3)


def test_nested_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTAGE_LLM__BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("PILOTAGE_PLANNER__STARVED_AFTER", "PT9S")
    settings = load_settings()
    assert settings.llm.configured
    assert settings.planner.starved_after == timedelta(seconds=9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('mode = "yolo"\n', "mode"),
        ("colour = 1\n", "colour"),
        ("[planner]\nhopeless = 7\n", "planner.hopeless"),
        ("mode = \n", "pilotage.toml"),
        ("[loop]\ntick = 'soon'\n", "loop.tick"),
    ],
    ids=["wrong value", "unknown key", "out of range", "not TOML", "wrong type"],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pilotage.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_settings()


def test_a_wrong_setting_is_blamed_on_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pilotage.toml").write_text('[retention]\nlogs = "PT5S"\n')
    monkeypatch.setenv("PILOTAGE_LOOP__TICK", "soon")
    with pytest.raises(ConfigError) as caught:
        load_settings(mode="yolo")
    parts = {part.partition("`")[2].partition("`")[0]: part for part in str(caught.value).split("; ")}
    assert "the flag --mode" in parts["mode"]
    assert "PILOTAGE_LOOP__TICK" in parts["loop.tick"]
    assert str(tmp_path / "pilotage.toml") in parts["retention.logs"]


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("retention_days = 30\n", 30),
        ('retention_days = 30\n[retention]\nlogs = "P5D"\n', 30),
        ('retention_days = 30\n[retention]\nevents = "P9D"\n', 9),
    ],
)
def test_what_an_older_file_says_of_retention_goes_on(tmp_path: Path, text: str, days: int) -> None:
    config = tmp_path / "pilotage.toml"
    config.write_text(text)
    assert load_settings(config=config).retention.events == timedelta(days=days)


def test_a_missing_settings_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(config=tmp_path / "none.toml")


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTAGE_LLM__API_KEY", "sk-very-private")
    monkeypatch.setenv("PILOTAGE_WEBHOOK_URL", "https://example.invalid/hook-private")
    assert "private" not in repr(load_settings())


def test_the_state_directory_is_found_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paths().root == tmp_path / ".pilotage"
    (tmp_path / "pilotage.toml").write_text(f'state_dir = "{tmp_path}/from-file"\n')
    assert paths().root == tmp_path / "from-file"
    monkeypatch.setenv("PILOTAGE_STATE_DIR", f"{tmp_path}/from-environment")
    assert paths().root == tmp_path / "from-environment"
    assert paths(tmp_path / "from-flag").root == tmp_path / "from-flag"


def test_every_setting_has_a_row_in_the_configuration_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    missing = [name for name in Settings.model_fields if f"`{name}" not in page]
    assert not missing
