"""The simplest forecast that is hard to beat: a workflow fails as it has failed lately.

On the public logs that were tried, a table of failure rates for each workflow is most of the answer, and
where a site's failure rate drifts, an exponentially weighted one beats every learned model.
"""

from __future__ import annotations

WEIGHT = 0.3
"""What the newest outcome counts: five failures in a row lift any rate above 0.8."""
ENOUGH = 5
"""Ended runs of a workflow from which its own average stands alone; fewer lean on the site's rate."""
PRIOR_RUNS = 5.0
"""How many ended runs the prior rate counts for in the site's rate."""


def after(average: float, failed: bool) -> float:
    """The average after one more outcome."""
    return average + WEIGHT * (float(failed) - average)


def site_rate(ended: int, failures: int, prior: float) -> float:
    """The failure rate of a whole site, leaning on `prior` while little has ended."""
    return (failures + PRIOR_RUNS * prior) / (ended + PRIOR_RUNS)


def shrunk(average: float, ended: int, site: float) -> float:
    """A workflow's average, leaning on the site's rate while fewer than five of its runs have ended."""
    own = min(1.0, ended / ENOUGH)
    return own * average + (1 - own) * site
