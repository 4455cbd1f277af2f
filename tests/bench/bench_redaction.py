"""What redaction masks and what it leaves: recall on secret forms, precision on harmless look-alikes, characters a second.

`make bench-redaction`. The forms are in `tests/telemetry/redaction_corpus.py`; the part that was not looked at while the
patterns were written is reported by itself.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.telemetry.redaction_corpus import harmless, secrets, seen

from pilotage.telemetry.redaction import redact
from pilotage.telemetry.token_detectors import fit_for_a_prompt


def figures(door: Callable[[str], str], *, unseen: bool) -> dict[str, object]:
    """Recall, precision and what was missed or masked without need, on one part of the forms."""
    forms = [(text, secret) for text, secret in secrets() if seen(text) is not unseen]
    plain = [text for text in harmless() if seen(text) is not unseen]
    missed = [text for text, secret in forms if secret in door(text)]
    spoiled = [text for text in plain if door(text) != text]
    masked = len(forms) - len(missed)
    return {
        "secrets": len(forms),
        "harmless": len(plain),
        "recall": round(masked / len(forms), 4),
        "precision": round(masked / max(1, masked + len(spoiled)), 4),
        "missed": missed,
        "spoiled": spoiled,
    }


def main() -> None:
    """Print the table and write `.bench/redaction.json`."""
    report: dict[str, object] = {}
    for name, door in (("store", redact), ("prompt", fit_for_a_prompt)):
        for part in ("seen", "unseen"):
            found = figures(door, unseen=part == "unseen")
            if part == "unseen" and "--show-unseen" not in sys.argv:
                found |= {key: len(list(found[key])) for key in ("missed", "spoiled")}  # type: ignore[call-overload]
            report[f"{name} {part}"] = found
            print(f"{name:7} {part:7}", json.dumps(found, ensure_ascii=False))
    text = "\n".join(harmless()) * 5
    for name, door in (("store", redact), ("prompt", fit_for_a_prompt)):
        began = time.process_time()
        door(text)
        report[f"{name} characters a second"] = rate = round(len(text) / (time.process_time() - began))
        print(f"{name:7} {rate} characters a second")
    out = Path(".bench/redaction.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
