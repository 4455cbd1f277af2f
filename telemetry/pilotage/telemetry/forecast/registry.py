"""The forecast models of one installation: each with an id, its scores and its evidence; one of them serves.

A directory for each model: `models.skops` (scikit-learn's own classes in skops' format, loaded only when no other
type is in it), `arrays.npz` (numbers only), `card.json`, `card.md`, `calibration.svg`. `serving.json` names the one
that serves. Light: scikit-learn is loaded with a model, not to list them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotage.telemetry.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from pilotage.telemetry.forecast.bundle import Bundle

KEPT = 20
"""Models that are kept; the oldest go first, the serving one stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known of a model without loading it."""

    model_id: str
    card: dict[str, Any]
    """Scores of every candidate and of what is served, counts, times."""
    serving: bool


class ModelRegistry:
    """The models under one directory. Several processes may use it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def register(self, bundle: Bundle, *, serve: bool = False) -> str:
        """Keep a model and let it serve, unless a person chose one to stay; `serve` overrules that. Return its id.

        Raises StoreError when it cannot be written.
        """
        model_id = bundle.model_id
        with self._locked():
            fresh = self.root / f".{model_id}"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(mode=0o700)
            bundle.write(fresh)
            fresh.replace(self.root / model_id)
            if serve or not self.pinned:
                self._choose(model_id, pinned=False)
            self._prune()
        return model_id

    def models(self) -> list[ModelCard]:
        """Return the models, the newest first."""
        serving = self.serving_id()
        found = []
        for directory in self._directories():
            with contextlib.suppress(OSError, ValueError):
                card = json.loads((directory / "card.json").read_text())
                found.append(ModelCard(model_id=directory.name, card=card, serving=directory.name == serving))
        return found

    def serving_id(self) -> str | None:
        """Return the id of the model that serves, or None when there is none yet."""
        chosen = self._choice().get("model_id")
        return str(chosen) if chosen and (self.root / str(chosen) / "card.json").is_file() else None

    @property
    def pinned(self) -> bool:
        """Whether a person chose the model that serves: newer ones then do not take its place by themselves."""
        return bool(self._choice().get("pinned"))

    def serving(self) -> Bundle | None:
        """Return the model that serves, or None. Raises StoreError when it cannot be read."""
        from pilotage.telemetry.forecast.bundle import read_bundle  # start-up time: scikit-learn

        model_id = self.serving_id()
        return None if model_id is None else read_bundle(self.root / model_id)

    def roll_back(self, model_id: str | None = None) -> str:
        """Let an older model serve and stay: the one that is named, or the one before the serving one. Return its id.

        Raises ConfigError when there is no such model, StoreError when it cannot be written.
        """
        with self._locked():
            ids = [directory.name for directory in self._directories()]
            if model_id is None:
                serving = self.serving_id()
                older = ids[ids.index(serving) + 1 :] if serving in ids else ids
                model_id = older[0] if older else None
            if model_id not in ids:
                raise ConfigError(
                    f"Rolling back the forecast to {model_id or 'an older model'}: there are "
                    f"{', '.join(ids) or 'no models yet'}. Name one of them."
                )
            self._choose(model_id, pinned=True)
            return model_id

    def _directories(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        # an id begins with the time at which it was made
        return sorted((path for path in self.root.iterdir() if path.name.startswith("m-")), reverse=True)

    def _choice(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.root / "serving.json").read_text()))
        except (OSError, ValueError):
            return {}

    def _choose(self, model_id: str, *, pinned: bool) -> None:
        fresh = self.root / ".serving.json"
        fresh.write_text(json.dumps({"model_id": model_id, "pinned": pinned}) + "\n")
        fresh.replace(self.root / "serving.json")

    def _prune(self) -> None:
        serving = self.serving_id()
        for directory in self._directories()[KEPT:]:
            if directory.name != serving:
                shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the models alone. Raises StoreError, also for what cannot be written meanwhile."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)
        except OSError as exc:
            raise StoreError(
                f"Changing the forecast models under {self.root}: {exc}. Make room there, or mend its permissions."
            ) from exc
