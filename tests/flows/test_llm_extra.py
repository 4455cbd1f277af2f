"""A configured model whose packages are not installed leaves the loop to the rules, and says what to install."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from pilotage.flows.agent.process import language_model
from pilotage.flows.config.settings import load_settings


def test_without_the_extra_there_is_no_model_and_a_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "pilotage.toml"
    config.write_text('[llm]\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "k"\nmodel = "m"\n')
    settings = load_settings(config=config, state_dir=tmp_path / "state", mode=None)
    assert settings.llm.configured
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "pilotage.planner.llm.openai", raising=False)
    with caplog.at_level(logging.ERROR):
        assert language_model(settings) is None
    assert "pip install 'pilotage[llm]'" in caplog.text
