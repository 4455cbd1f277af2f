"""Draws what was forecast against what came, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SIDE, EDGE = 320, 40


def calibration_svg(bins: Sequence[Mapping[str, float]], title: str = "Said and was") -> str:
    """Return a reliability diagram; `bins` as `scores.reliability` makes them."""
    most = max((each["runs"] for each in bins), default=1.0)

    def x(chance: float) -> float:
        return EDGE + chance * SIDE

    def y(chance: float) -> float:
        return EDGE + (1 - chance) * SIDE

    marks = [
        f'<circle cx="{x(each["said"]):.1f}" cy="{y(each["was"]):.1f}" r="{3 + 9 * (each["runs"] / most) ** 0.5:.1f}" '
        f'fill="#2b6cb0" fill-opacity="0.7"><title>{each["runs"]:.0f} runs: said {each["said"]:.1%}, was {each["was"]:.1%}'
        "</title></circle>"
        for each in bins
    ]
    ticks = [
        f'<text x="{x(share):.0f}" y="{EDGE + SIDE + 16}" text-anchor="middle">{share:.0%}</text>'
        f'<text x="{EDGE - 6}" y="{y(share) + 4:.0f}" text-anchor="end">{share:.0%}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    size = SIDE + 2 * EDGE + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" height="{size}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="{title}">'
        f'<rect width="{size}" height="{size}" fill="#fff"/>'
        f'<rect x="{EDGE}" y="{EDGE}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>'
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="#999" stroke-dasharray="4 4"/>'
        f"{''.join(marks)}{''.join(ticks)}"
        f'<text x="{EDGE}" y="22" font-size="14">{title}</text>'
        f'<text x="{EDGE + SIDE / 2}" y="{EDGE + SIDE + 34}" text-anchor="middle">chance of failing that was said</text>'
        f'<text x="12" y="{EDGE + SIDE / 2}" text-anchor="middle" transform="rotate(-90 12 {EDGE + SIDE / 2})">'
        "share that failed</text></svg>\n"
    )
