"""A second net under `redact`, for text on its way to a language model: the detectors of detect-secrets, by shape.

Its list of providers' tokens is longer than ours, and somebody else's eyes keep it. Only detectors that go by shape are
used: those that go by entropy or by the name beside a value take run ids for secrets, and `redact` knows names itself.
The detectors are called directly; the library's scanning of files and its network checks are not used.
"""

from __future__ import annotations

import re
import time
from functools import cache
from typing import Any

from pilotage.telemetry.redaction import MASK, redact

DETECTORS = (
    ("aws", "AWSKeyDetector"),
    ("azure_storage_key", "AzureStorageKeyDetector"),
    ("basic_auth", "BasicAuthDetector"),
    ("cloudant", "CloudantDetector"),
    ("discord", "DiscordBotTokenDetector"),
    ("github_token", "GitHubTokenDetector"),
    ("gitlab_token", "GitLabTokenDetector"),
    ("ibm_cloud_iam", "IbmCloudIamDetector"),
    ("ibm_cos_hmac", "IbmCosHmacDetector"),
    ("jwt", "JwtTokenDetector"),
    ("mailchimp", "MailchimpDetector"),
    ("npm", "NpmDetector"),
    ("openai", "OpenAIDetector"),
    ("private_key", "PrivateKeyDetector"),
    ("pypi_token", "PypiTokenDetector"),
    ("sendgrid", "SendGridDetector"),
    ("slack", "SlackDetector"),
    ("softlayer", "SoftlayerDetector"),
    ("square_oauth", "SquareOAuthDetector"),
    ("stripe", "StripeDetector"),
    ("telegram_token", "TelegramBotTokenDetector"),
    ("twilio", "TwilioKeyDetector"),
)
"""Module and class of each detector that is used."""


@cache
def _detectors() -> tuple[Any, ...]:
    import importlib  # start-up time: 0.2 s, and only where there is a model

    return tuple(
        getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)()
        for module, name in DETECTORS
    )


LONGEST_PIECE = 4_000
"""Characters that a detector is given at a time; a longer line is cut into pieces that overlap."""
OVERLAP = 400
"""Longer than any token that is looked for."""
TIME = 2.0
"""Seconds for one text; what was not looked at by then is left out."""
NOT_CHECKED = "[left out: it could not be checked for secrets in time]"
_SPACES = re.compile(r"[ \t\f\v\u00a0]{2,}")


def fit_for_a_prompt(text: str) -> str:
    """The text without what `redact` masks and without what any of the detectors takes for a secret.

    It takes time in proportion to the text, and not more than TIME; call it off the event loop.
    """
    until = time.monotonic() + TIME
    lines = redact(text).split("\n")
    fit: list[str] = []
    for line in lines:
        if time.monotonic() > until:
            fit.append(NOT_CHECKED)
            break
        fit.append(_masked(line, until))
    return "\n".join(fit)


def _masked(line: str, until: float) -> str:
    secrets: set[str] = set()
    for begin in range(0, max(1, len(line)), LONGEST_PIECE - OVERLAP):
        if time.monotonic() > until:
            return NOT_CHECKED
        # runs of spaces say nothing, and some of the detectors take cubic time on them
        piece = _SPACES.sub(" ", line[begin : begin + LONGEST_PIECE])
        secrets |= {
            secret for detector in _detectors() for secret in detector.analyze_string(piece) if secret
        }
    for secret in sorted(secrets - {MASK}, key=len, reverse=True):
        line = line.replace(secret, MASK)
    return line
