"""Sites that no model was made for: a failure rate that doubles, a storm, many cancellations, a renamed deployment."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pilotage.telemetry.forecast.run_history import Flags, Floats, RunHistory

Site = Callable[[], tuple[RunHistory, Flags]]
RUNS, DEPLOYMENTS = 6_000, 40


def _site(seed: int, *, chance: Callable[[Floats, Floats], Floats], cancelled: float = 0.02, renamed: bool = False
          ) -> tuple[RunHistory, Flags]:  # fmt: skip
    """Return a site; `chance` gives the true chance of failing from the deployment's own and the share of time gone."""
    draw = np.random.default_rng(seed)
    deployment = draw.integers(0, DEPLOYMENTS, RUNS)
    own = np.where(
        np.arange(DEPLOYMENTS) % 5 == 0,
        draw.uniform(0.2, 0.6, DEPLOYMENTS),
        draw.uniform(0.0, 0.08, DEPLOYMENTS),
    )
    submitted = np.sort(draw.uniform(0, 30 * 86400.0, RUNS)) + 1.7e9
    gone = np.linspace(0, 1, RUNS)
    failed = draw.random(RUNS) < chance(own[deployment], gone)
    is_cancelled = draw.random(RUNS) < cancelled
    failed &= ~is_cancelled
    ended = submitted + draw.lognormal(5, 1.2, RUNS)
    code = deployment.copy()
    if renamed:
        # a third of the deployments get another name in the middle, the owner stays
        code[(gone > 0.5) & (deployment % 3 == 0)] += DEPLOYMENTS
    history = RunHistory(
        run_id=tuple(map(str, range(RUNS))),
        deployment=code.astype(np.int64),
        owner=(deployment % 12).astype(np.int64),
        queue=(deployment % 3).astype(np.int64),
        submitted=submitted,
        started=submitted,
        ended=ended,
        outcome=tuple(np.where(is_cancelled, "CANCELLED", np.where(failed, "FAILED", "COMPLETED")).tolist()),
        numbers={},
        clock=True,
    )
    return history, failed


def _storm(own: Floats, gone: Floats) -> Floats:
    return np.where((gone > 0.55) & (gone < 0.6), 0.9, own)


def _doubled(own: Floats, gone: Floats) -> Floats:
    return np.minimum(own * np.where(gone > 0.5, 2, 1), 0.95)


SITES: Mapping[str, Site] = {
    "the failure rate doubles": lambda: _site(
        1, chance=lambda own, gone: np.minimum(own * np.where(gone > 0.5, 2, 1), 0.95)
    ),
    "a storm": lambda: _site(2, chance=_storm),
    "40 % cancellations": lambda: _site(3, chance=lambda own, _gone: own, cancelled=0.4),
    "deployments are renamed": lambda: _site(4, chance=lambda own, _gone: own, renamed=True),
}
"""By name: a history, and which of its runs failed."""
