"""A second net under `redact`, for text on its way to a language model: the detectors of detect-secrets, by shape.

Its list of providers' tokens is longer than ours, and somebody else's eyes keep it. Only detectors that go by shape are
used: those that go by entropy or by the name beside a value take run ids for secrets, and `redact` knows names itself.
The detectors are called directly; the library's scanning of files and its network checks are not used.
"""

from __future__ import annotations

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


def fit_for_a_prompt(text: str) -> str:
    """The text without what `redact` masks and without what any of the detectors takes for a secret."""
    return "\n".join(_masked(line) for line in redact(text).split("\n"))


def _masked(line: str) -> str:
    secrets = {secret for detector in _detectors() for secret in detector.analyze_string(line) if secret}
    for secret in sorted(secrets - {MASK}, key=len, reverse=True):
        line = line.replace(secret, MASK)
    return line
