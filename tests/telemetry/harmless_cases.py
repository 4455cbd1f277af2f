"""What is shown for what somebody wrote: the same in terminals, logs and on the page."""

from __future__ import annotations

CASES = {
    "orders-eu 7%": "orders-eu 7%",
    "Zahlung für Café": "Zahlung für Café",
    "заказы/утро": "заказы/утро",
    "注文 orders": "注文 orders",
    "45 μs of ΔT": "45 μs of ΔT",
    "a\x1b[2Jb\x00": "a\\x1b[2Jb\\x00",
    "\x9b31mred": "\\x9b31mred",
    "pay\u200bments": "pay\\u{200b}ments",
    "soft\u00adhyphen": "soft\\xadhyphen",
    "right\u202eto left": "right\\u{202e}to left",
    "tag\U000e0041": "tag\\u{e0041}",
    "hangul\u3164filler": "hangul\\u{3164}filler",
    "line\u2028end": "line\\u{2028}end",
    "οrders": "\\u{3bf}rders",
    "nightly/οrders-eu": "nightly/\\u{3bf}rders-eu",
    "pаyments": "p\\u{430}yments",
    "зaказы": "з\\x61казы",
    "ｏrders": "\\u{ff4f}rders",
    "or𝐝ers": "or\\u{1d41d}ers",
    "зал A1": "зал A1",
}
