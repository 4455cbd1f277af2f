"""A small text classifier: hashed words and character runs, logistic regression, calibrated, and silent when unsure.

It is trained in about a second from a few hundred labelled texts, so no model file is shipped or loaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

READ_CHARS = 3_000
FEWEST = 3
"""A label with fewer texts is not learned."""
FOLDS = 3
_VARIABLE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\b[0-9a-f]{12,}\b|https?://\S+|/[\w./-]{8,}", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What a classifier takes a text for."""

    label: str
    probability: float
    """The share of texts with such a score that were labelled right when they were held out."""


def masked(text: str) -> str:
    """Return the text without ids, paths and addresses, which only tell where it came from."""
    return _VARIABLE.sub(" x ", text[:READ_CHARS])


class TextClassifier:
    """Learns labels of texts. Deterministic for the same texts in the same order."""

    def __init__(
        self, texts: Sequence[str], labels: Sequence[str], groups: Sequence[str], silent_below: float
    ) -> None:
        """Train on labelled texts. `groups` name their sources: no source helps to judge itself."""
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline, make_union
        from threadpoolctl import threadpool_limits

        counted = Counter(labels)
        kept = [i for i, label in enumerate(labels) if counted[label] >= FEWEST]
        texts, labels = [masked(texts[i]) for i in kept], [labels[i] for i in kept]
        groups = [groups[i] for i in kept]
        self._silent_below = silent_below
        words = HashingVectorizer(n_features=2**12, ngram_range=(1, 2), lowercase=True, alternate_sign=False)
        runs = HashingVectorizer(
            n_features=2**12, analyzer="char_wb", ngram_range=(3, 5), alternate_sign=False
        )
        self._model: Any = make_pipeline(
            make_union(words, runs), LogisticRegression(C=10.0, class_weight="balanced", max_iter=200)
        )
        folds = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=0)
        known = sorted(set(labels))
        # matrices this small are slower on many threads, and very much slower beside others
        with threadpool_limits(1):
            held_out = cross_val_predict(
                self._model, texts, labels, groups=groups, cv=folds, method="predict_proba"
            )
            self._model.fit(texts, labels)
        scores = held_out.max(axis=1).reshape(-1, 1)
        right = [known[row] == label for row, label in zip(held_out.argmax(axis=1), labels, strict=True)]
        self._calibration: Any = (
            LogisticRegression().fit(scores, right) if 0 < sum(right) < len(right) else None
        )

    def opinion(self, text: str) -> Opinion | None:
        """Return what a text is taken for, or None when that is too unsure to be said."""
        [scores] = self._model.predict_proba([masked(text)])
        best = int(scores.argmax())
        probability = float(scores[best])
        if self._calibration is not None:
            probability = float(self._calibration.predict_proba([[probability]])[0, 1])
        if probability < self._silent_below:
            return None
        return Opinion(label=str(self._model.classes_[best]), probability=probability)
