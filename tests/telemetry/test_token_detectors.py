"""The second net before a prompt: providers' tokens go, what a diagnosis needs stays."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pilotage.telemetry.redaction import MASK
from pilotage.telemetry.token_detectors import DETECTORS, fit_for_a_prompt

SECRETS = {
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "azure": "AccountKey="
    + "lJzRc1YdHaAA2KCNJJ1tkYwF/+mKK6Ygw0NGe170Xu592euJv2wYUtBlV8z+qnlcNQSnIYVTkLWntUO1F8j8rQ==",
    "basic auth": "hunter2" + "hunter2",
    "discord": "MTAwMDAwMDAwMDAwMDAwMDAw" + ".Xabcde.abcdefghijklmnopqrstuvwxyz1",
    "github": "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789",
    "gitlab": "glpat-" + "abcdefghij0123456789",
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
    "mailchimp": "0123456789abcdef0123456789abcdef" + "-us1",
    "openai": "sk-" + "abcdefghijklmnopqrstT3BlbkFJabcdefghijklmnopqrst",
    "slack": "xoxb-" + "123456789012-abcdefghijkl",
    "square": "sq0csp-" + "abcdefghijklmnopqrstuvwxyz0123456789abcdefg",
    "stripe": "sk_live_" + "abcdefghijklmnopqrstuvwx",
    "telegram": "123456789:" + "AAEhBOweik9ai2o01ywxyz-abcdefghijkl",
    "twilio": "SK" + "0123456789abcdef0123456789abcdef",
}
ORDINARY = """\
Flow run encountered an exception: ConnectError: All connection attempts failed at 10.0.0.1:8080
run 11111111-1111-4111-8111-111111111111 of deployment etl/nightly, attempt 3, exit code 137
File "/srv/flows/build_features.py", line 63, in load: KeyError: 'customer_id'
commit 3f2a9c1d5e7b8a90f1e2d3c4b5a697887766554 took 12.5 s, read 1000000 rows from s3://bucket/path/part-0001.parquet
{"facts": {"state": "Failed", "log_lines": ["HTTP 503 from https://api.example.com/v1/items?page=2"]}}"""


LINES = ("refused: {}", "first line\nurl https://user:{}@example.com/x\nlast", '{{"v": "{}"}}')
PLACED = [
    (name, line)
    for name in SECRETS
    for line in LINES
    if name != "basic auth" or "user:" in line  # a word is a password only where a password stands
]


@pytest.mark.parametrize(("name", "line"), PLACED)
def test_a_secret_of_a_known_shape_goes_wherever_it_stands(name: str, line: str) -> None:
    secret = SECRETS[name]
    told = fit_for_a_prompt(line.format(secret))
    assert secret not in told
    assert MASK in told


def test_what_a_diagnosis_needs_stays() -> None:
    assert fit_for_a_prompt(ORDINARY) == ORDINARY


def test_every_detector_that_is_named_is_there_and_a_prompt_takes_milliseconds() -> None:
    fit_for_a_prompt("warm up")
    began = time.process_time()
    fit_for_a_prompt("\n".join([ORDINARY] * 20))
    assert time.process_time() - began < 1
    assert len(DETECTORS) >= 20


def test_who_asks_no_model_pays_nothing() -> None:
    code = (
        "import sys, pilotage.telemetry.token_detectors; "
        "assert not any(n.startswith('detect_secrets') for n in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
