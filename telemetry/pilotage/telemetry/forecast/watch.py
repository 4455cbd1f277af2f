"""Notices when forecasts stop being right: a storm of failures, or chances that the outcomes have left behind."""

from __future__ import annotations

import math
from collections import deque
from datetime import UTC, datetime, timedelta

from pilotage.telemetry.store.protocol import Store

STORM_RUNS, DRIFT_RUNS = 25, 200
"""Ended forecasts, the newest, in which a storm and a lost calibration are looked for: they are noticed within so many."""
BEYOND_CHANCE = 6.0
"""Standard deviations between failures and expected failures: that mutes a hundredth of a year of batch jobs."""
OVER, OVER_RUNS = 2.0, 50
"""Standard deviations below which it is over, among the newest ended forecasts, none of which is older than it."""
REMEMBERED = timedelta(days=1)
"""Stored forecasts that a watch begins with: what ended before says nothing of now."""
_SCORED = """
    SELECT p_fail, failed, epoch(ended) AS ended FROM forecasts WHERE failed IS NOT NULL AND ended > $1 AND ended <= $2
    QUALIFY row_number() OVER (PARTITION BY run_id, ended ORDER BY made_at DESC) = 1 ORDER BY ended DESC LIMIT $3
"""


def newest_scored(store: Store, now: datetime) -> list[tuple[float, bool, float]]:
    """Return chance, whether it failed, and end of the newest stored forecasts that were scored, the newest last.

    So a storm is noticed again after a restart. Raises StoreError.
    """
    rows = store.rows(_SCORED, [now - REMEMBERED, now, 2 * DRIFT_RUNS])
    return [(float(row["p_fail"]), bool(row["failed"]), float(row["ended"])) for row in rows[::-1]]


class ForecastWatch:
    """Compares what was said with what was, forecast by forecast in the order of the ends."""

    def __init__(self) -> None:
        self._newest: deque[tuple[float, bool]] = deque(maxlen=DRIFT_RUNS)
        self._since = 0
        """Outcomes since the present trouble was noticed."""
        self.reason = ""
        """Why nothing may act on forecasts, in the same words until it is over; empty when they are right."""

    def add(self, chance: float, failed: bool, at: float) -> None:
        """Take the outcome of one forecast that had been made before. `at`: epoch seconds of its end."""
        self._newest.append((chance, failed))
        if self.reason:
            self._since += 1
            if self._since >= OVER_RUNS and abs(self._missed(OVER_RUNS)[0]) < OVER:
                self.reason = ""
            return
        for runs, name in ((STORM_RUNS, "a storm"), (DRIFT_RUNS, "lost calibration")):
            beyond, failures, expected = self._missed(runs)
            # only more failures than expected are a storm
            if beyond > BEYOND_CHANCE or (runs == DRIFT_RUNS and beyond < -BEYOND_CHANCE):
                since = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
                self._since = 0
                self.reason = (
                    f"{name} since {since}: of the newest {runs} ended attempts {failures} failed, "
                    f"{expected:.0f} were expected to"
                )
                return

    def _missed(self, runs: int) -> tuple[float, int, float]:
        """Return by how many standard deviations the newest runs failed more than expected, both numbers beside it."""
        if len(self._newest) < runs:
            return 0.0, 0, 0.0
        newest = list(self._newest)[-runs:]
        failures, expected = sum(failed for _, failed in newest), sum(chance for chance, _ in newest)
        variance = sum(chance * (1 - chance) for chance, _ in newest)
        # half a run more, for chances near 0 of which a few failures are no news
        return (failures - expected) / math.sqrt(variance + 0.5), failures, expected
