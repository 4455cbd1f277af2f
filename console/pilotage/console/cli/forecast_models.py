"""`pilotage forecast status | train | models | rollback | score`: the life of the served model."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pilotage.console.cli.options import AsJson, StateDir, told
from pilotage.console.render.text import OUT, print_json, print_pairs, print_table
from pilotage.flows.config.paths import paths
from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.registry import ModelCard, ModelRegistry

SCORES = ("roc_auc", "pr_auc", "brier", "ece", "log_loss")
HEADINGS = ("ROC-AUC", "PR-AUC", "Brier", "ECE", "log loss")


def status(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Say which model serves, on what it was trained and how it scored."""
    with told(as_json):
        registry = ModelRegistry(paths(state_dir).forecast_models)
        serving = next((each for each in registry.models() if each.serving), None)
        said: dict[str, Any] = {
            "serving": serving.model_id if serving else None,
            "chosen by a person": registry.pinned,
            **(_facts(serving) if serving else {}),
        }
        if as_json:
            print_json({**said, "card": serving.card if serving else None})
        elif serving is None:
            print_pairs(
                "forecast",
                {
                    "serving": "the smoothed rate of failures: no model has been trained yet (60 ended runs are needed)"
                },
            )
        else:
            print_pairs("forecast", {key: str(value) for key, value in said.items()})
            _print_scores(serving.card)


def models(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List the registered models, the newest first."""
    with told(as_json):
        found = ModelRegistry(paths(state_dir).forecast_models).models()
        if as_json:
            print_json([{**_facts(each), "serving": each.serving, "card": each.card} for each in found])
            return
        print_table(
            "Forecast models",
            ("model", "serves", "trained on", "PR-AUC", "PR-AUC of the rate", "ECE"),
            (
                (
                    each.model_id,
                    "yes" if each.serving else "",
                    str(each.card.get("trained_on")),
                    _number((each.card.get("served") or {}).get("pr_auc")),
                    _number(((each.card.get("candidates") or {}).get("rate") or {}).get("pr_auc")),
                    _number((each.card.get("served") or {}).get("ece")),
                )
                for each in found
            ),
            empty="No model has been trained yet: the smoothed rate of failures serves.",
        )


def train(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Train a model now on everything that has ended, register it and let it serve."""
    with told(as_json):
        from pilotage.flows.agent.training import train_and_register  # start-up time: scikit-learn
        from pilotage.telemetry import connect

        where = paths(state_dir)
        store = connect(where.root)
        try:
            entry = train_and_register(
                store, ModelRegistry(where.forecast_models), datetime.now(UTC), serve=True
            )
        finally:
            store.close()
        if as_json:
            print_json({"model_id": entry})
        else:
            OUT.print(
                f"{entry} serves" if entry else "nothing trained: fewer than 60 runs have ended, or all alike"
            )


def rollback(
    model: Annotated[
        str | None, typer.Argument(help="The model that is to serve; empty for the one before.")
    ] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Let an older model serve. It stays until `pilotage forecast train` or another rollback."""
    with told(as_json):
        chosen = ModelRegistry(paths(state_dir).forecast_models).roll_back(model)
        if as_json:
            print_json({"model_id": chosen})
        else:
            OUT.print(f"{chosen} serves, and stays until `pilotage forecast train` or another rollback")


def score(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Score the forecasts that were stored, model by model, by how their runs ended."""
    with told(as_json):
        from pilotage.telemetry import connect
        from pilotage.telemetry.forecast.stored_scores import stored_scores  # start-up time: scikit-learn

        store = connect(paths(state_dir).root)
        try:
            scores = stored_scores(store)
        finally:
            store.close()
        if as_json:
            print_json(scores)
            return
        print_table(
            "Stored forecasts whose runs have ended",
            ("model", "forecasts", "failed", *HEADINGS),
            (
                (
                    str(each["model_id"]),
                    str(each["forecasts"]),
                    f"{each['base_rate']:.1%}",
                    *(_number(each[name]) for name in SCORES),
                )
                for each in scores
            ),
            empty="No forecast of a run that has ended is stored yet.",
        )


def _facts(model: ModelCard) -> dict[str, Any]:
    card = model.card
    return {
        "model_id": model.model_id,
        "made at": card.get("made_at"),
        "trained on": f"{card.get('trained_on')} ended attempts",
        "scored on": f"{(card.get('counts') or {}).get('test_scored')} attempts, {card.get('base_rate', 0):.1%} failed",
    }


def _print_scores(card: dict[str, Any]) -> None:
    if not card.get("served"):
        raise ConfigError(
            "Showing the scores: the model's card has none. Train another: `pilotage forecast train`."
        )
    print_table(
        "Scores before the outcomes were known",
        ("candidate", *HEADINGS),
        (
            (name, *(_number(found.get(key)) for key in SCORES))
            for name, found in (*(card.get("candidates") or {}).items(), ("served", card["served"]))
        ),
        empty="",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
