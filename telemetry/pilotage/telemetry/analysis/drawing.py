"""Pictures that can be read in a meeting: one statement each, marks beside colours, nothing drawn of nothing.

Matplotlib is part of the extra `notebooks`, and is loaded when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pilotage.telemetry.harmless import harmless

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442")
"""Okabe and Ito's, which colour-blind people can tell apart."""
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "||", "++", "oo")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LONGEST = 44


def name_of(text: object) -> str:
    """Return somebody's word as it may be drawn: quoted where it is not plain, cut where it is long."""
    return harmless(str(text), LONGEST)


def figure(title: str, *, panels: int = 1, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """Return a figure with its statement as the title, and its panels side by side."""
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "text.parse_math": False,  # a `$` in somebody's name is a dollar
        }
    )
    drawn, axes = plt.subplots(1, panels, figsize=(9.5, height), squeeze=False)
    drawn.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return drawn, list(axes[0])


def stacked_bars(
    axes: Axes, labels: Sequence[object], parts: Mapping[str, Sequence[float]], xlabel: str
) -> None:
    """Draw a horizontal bar for each label, made of parts; the first label is on top."""
    left = [0.0] * len(labels)
    for place, (part, values) in enumerate(parts.items()):
        axes.barh(
            range(len(labels)),
            values,
            left=left,
            color=COLOURS[place % len(COLOURS)],
            hatch=HATCHES[place % len(HATCHES)],
            edgecolor="white",
            label=name_of(part),
        )
        left = [before + value for before, value in zip(left, values, strict=True)]
    axes.set_yticks(range(len(labels)), [name_of(label) for label in labels])
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    if len(parts) > 1:
        # above the bars, which may be as wide as the picture
        axes.legend(
            frameon=False, fontsize=8, ncols=min(len(parts), 4), loc="lower right", bbox_to_anchor=(1, 1)
        )


def lines(
    axes: Axes, x: Sequence[Any], series: Mapping[str, Sequence[float]], xlabel: str, ylabel: str
) -> None:
    """Draw one line with its own mark for each series."""
    for place, (name, values) in enumerate(series.items()):
        axes.plot(
            x,
            values,
            marker=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            markersize=4,
            label=name_of(name),
        )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8)


def reliability(axes: Axes, bins: Sequence[Mapping[str, float]], label: str = "", place: int = 0) -> None:
    """Draw what was said against what was, the size of a mark by how many runs it stands for; right is on the diagonal."""
    most = max((each["runs"] for each in bins), default=1)
    axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=0.8)
    axes.scatter(
        [each["said"] for each in bins],
        [each["was"] for each in bins],
        s=[18 + 160 * each["runs"] / most for each in bins],
        color=COLOURS[place],
        marker=MARKERS[place],
        alpha=0.8,
        label=label,
    )
    axes.set_xlabel("said")
    axes.set_ylabel("was")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
