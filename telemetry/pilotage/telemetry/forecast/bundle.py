"""One trained forecast as files: models through skops, numbers as plain arrays, a card for people. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.forecast.calibration_plot import calibration_svg
from pilotage.telemetry.forecast.candidates import CANDIDATES, FittedModels, LinearModel
from pilotage.telemetry.forecast.stacking import Evidence

TRUSTED = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",)
"""The one type that skops does not know by itself and that a model is made of; a file with another is not loaded."""
ARRAYS, MODELS, CARD = "arrays.npz", "models.skops", "card.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Everything that a live loop needs of a training."""

    model_id: str
    names: tuple[str, ...]
    """Of the columns that the models know."""
    models: FittedModels
    evidence: Evidence
    trained_until: float
    """Epoch seconds: no end that came later was seen."""
    card: Mapping[str, Any]

    def write(self, directory: Path) -> None:
        """Write the files. Raises OSError."""
        arrays: dict[str, Any] = {
            "medians": self.models.medians,
            "failed": self.evidence.failed,
            "ended": self.evidence.ended,
            **{f"made_{name}": self.evidence.made[name] for name in CANDIDATES},
        }
        if (linear := self.models.logistic) is not None:
            arrays |= {"mean": linear.mean, "scale": linear.scale, "weights": linear.weights}
            arrays["intercept"] = np.array([linear.intercept])
        np.savez_compressed(directory / ARRAYS, **arrays)
        if self.models.boosting is not None:
            import skops.io  # start-up time: a site without a model does not need it

            skops.io.dump(self.models.boosting, directory / MODELS)
        facts = {
            "model_id": self.model_id,
            "names": list(self.names),
            "trained_on": self.models.trained_on,
            "shift": self.models.shift,
            "trained_until": self.trained_until,
            **self.card,
        }
        (directory / CARD).write_text(json.dumps(facts, indent=1) + "\n")
        (directory / "card.md").write_text(card_text(facts))
        (directory / "calibration.svg").write_text(calibration_svg(self.card.get("reliability") or []))


def read_bundle(directory: Path) -> Bundle:
    """Return a model that was written. Raises StoreError when a file is damaged or holds a type that is not trusted."""
    try:
        facts = json.loads((directory / CARD).read_text())
        with np.load(directory / ARRAYS, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        boosting = trees = None
        if (directory / MODELS).exists():
            import skops.io  # start-up time: a site without a model does not need it

            from pilotage.telemetry.forecast.fitting import flattened

            boosting = skops.io.load(directory / MODELS, trusted=list(TRUSTED))
            trees = flattened(boosting)
        linear = None
        if "weights" in arrays:
            linear = LinearModel(
                mean=arrays["mean"],
                scale=arrays["scale"],
                weights=arrays["weights"],
                intercept=float(arrays["intercept"][0]),
            )
        return Bundle(
            model_id=str(facts["model_id"]),
            names=tuple(facts["names"]),
            models=FittedModels(
                logistic=linear,
                boosting=boosting,
                trained_on=int(facts["trained_on"]),
                medians=arrays["medians"],
                trees=trees,
                shift=float(facts["shift"]),
            ),
            evidence=Evidence(
                made={name: arrays[f"made_{name}"] for name in CANDIDATES},
                failed=arrays["failed"].astype(bool),
                ended=arrays["ended"],
            ),
            trained_until=float(facts["trained_until"]),
            card=facts,
        )
    # skops refuses a type with a TypeError of its own; a torn file may be anything
    except Exception as exc:
        raise StoreError(
            f"Reading the forecast model {directory.name}: {exc}. "
            "Train another (`pilotage forecast train`), or go back to an older one (`pilotage forecast rollback`)."
        ) from exc


def card_text(facts: Mapping[str, Any]) -> str:
    """Return the model card as Markdown."""
    counts = facts.get("counts") or {}
    lines = [
        f"# Forecast model {facts['model_id']}",
        "",
        f"Forecasts that an attempt of a run ends {' or '.join(facts.get('label') or ())}. Trained on "
        f"{facts['trained_on']} attempts that had ended; scored on the {counts.get('test_scored', 0)} newest, each "
        f"forecast before its outcome was known; {facts.get('base_rate', 0.0):.2%} of them failed.",
        "",
        "| candidate | ROC-AUC | PR-AUC | Brier | ECE | log loss |",
        "|---|---|---|---|---|---|",
        *(_row(name, scores) for name, scores in _scored(facts)),
        "",
        "![said and was](calibration.svg)",
        "",
        "What is served is a mix of the candidates' log-odds, pulled towards the better trivial one: "
        + ", ".join(f"{name} {value:.2f}" for name, value in (facts.get("stack") or {}).items() if name != "leans_on")
        + ".",
        "",
        "It knows nothing of what a run does, only of how runs like it have gone here. Columns: "
        + ", ".join(facts.get("names") or ())
        + ".",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _scored(facts: Mapping[str, Any]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    return [*(facts.get("candidates") or {}).items(), ("served", facts.get("served") or {})]


def _row(name: str, scores: Mapping[str, Any]) -> str:
    shown = (scores.get(key) for key in ("roc_auc", "pr_auc", "brier", "ece", "log_loss"))
    return f"| {name} | " + " | ".join("" if value is None else f"{value:.4f}" for value in shown) + " |"
