"""The page's colours: readable in both themes, and told apart by eyes that do not see all of them."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

import pilotage.console.web as web

SHEET = (Path(web.__file__).parent / "static" / "style.css").read_text()
PAIRS = re.findall(r"--(\w+): light-dark\((#[0-9a-f]+), (#[0-9a-f]+)\)", SHEET)
THEMES = {name: {word: pair[n] for word, *pair in PAIRS} for n, name in enumerate(("light", "dark"))}
Colour = tuple[float, float, float]
# Machado, Oliveira, Fernandes: A Physiologically-based Model for Simulation of Color Vision Deficiency (2009), severity 1
BLINDNESS: dict[str, tuple[Colour, Colour, Colour]] = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}  # fmt: skip


def linear(colour: str) -> Colour:
    """Red, green and blue in [0, 1] as light adds up."""
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return red, green, blue


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it, from 1 to 21."""
    bright, dark = sorted(
        (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05 for r, g, b in (linear(one), linear(other))),
        reverse=True,
    )
    return bright / dark


def lab(colour: Colour) -> Colour:
    """CIE L*a*b* under D65, in which distances are about as large as they look."""
    r, g, b = colour
    x, y, z = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883,
    )
    fx, fy, fz = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def seen_by(blindness: str, colour: str) -> Colour:
    """The colour as it looks to somebody, in L*a*b*."""
    light = linear(colour)
    rows = BLINDNESS[blindness]
    red, green, blue = (
        min(1.0, max(0.0, sum(k * v for k, v in zip(row, light, strict=True)))) for row in rows
    )
    return lab((red, green, blue))


@pytest.mark.parametrize("theme", THEMES)
def test_words_can_be_read_on_every_ground(theme: str) -> None:
    colour = THEMES[theme]
    assert len(colour) >= 12
    for word, ground in product(("ink", "faint", "link", "good", "wait", "bad"), ("ground", "panel", "sunk")):
        assert contrast(colour[word], colour[ground]) >= 4.5, (word, ground)
    for button in ("goback", "nobg"):
        assert contrast("#fff", colour[button]) >= 4.5, button
    for ground in ("ground", "panel"):
        assert contrast(colour["focus"], colour[ground]) >= 3, ground
    sign = {"light": "#fff", "dark": "#101418"}[theme]
    for bar in ("good", "bad", "wait", "faint"):
        assert contrast(sign, colour[bar]) >= 4.5, bar


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_good_and_bad_stay_apart_for_who_does_not_see_every_colour(theme: str, blindness: str) -> None:
    good, bad = (seen_by(blindness, THEMES[theme][word]) for word in ("good", "bad"))
    assert sum((one - other) ** 2 for one, other in zip(good, bad, strict=True)) ** 0.5 >= 25
