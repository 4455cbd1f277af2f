"""Secrets go, what a reader needs stays, and nothing can drive a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry.redaction_corpus import harmless, secrets

from pilotage.telemetry.redaction import (
    LONGEST,
    MASK,
    TOO_DEEP,
    LineStream,
    names_a_secret,
    redact,
    redact_json,
)

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nq83vEjRW\n-----END RSA PRIVATE KEY-----"

# text, the secret in it, something that must stay
LEAKS = [
    ("connecting to postgresql://etl:s3cr3tpw@db.internal:5432/sales", "s3cr3tpw", "@db.internal:5432/sales"),
    ("redis://:hunter2hunter2@cache:6379/0", "hunter2hunter2", "cache:6379"),
    ("https://ghp_0123456789abcdefghij0123456789abcdef@git.example/x.git", "ghp_0123", "git.example/x.git"),
    ("Authorization: Bearer abc.def-ghi_jkl012345", "abc.def", "Authorization: Bearer"),
    ("{'Authorization': 'Basic dXNlcjpwYXNzd29yZA=='}", "dXNlcjpw", "Authorization"),
    ("curl -H 'bearer 0123456789abcdef0123'", "0123456789abcdef0123", "curl"),
    (f"token was {JWT}, expired", "eyJhbGci", "expired"),
    ("key AKIAIOSFODNN7EXAMPLE is not allowed to s3:GetObject", "AKIAIOSFODNN7EXAMPLE", "s3:GetObject"),
    (
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "wJalrXUtnFEMI",
        "aws_secret_access_key",
    ),
    (f"loaded {KEY} from vault", "MIIEow", "from vault"),
    ("cut off -----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg", "MIIEvQ", "cut off"),
    ("password=hunter2", "hunter2", "password="),
    ("FTP login failed: user=etl pwd: Tr0ub4dor&3 host=ftp", "Tr0ub4dor", "user=etl"),
    ('{"api_key": "0a1b2c3d4e5f", "region": "eu"}', "0a1b2c3d4e5f", '"region": "eu"'),
    ("{'password': 'two words here', 'host': 'db'}", "two words here", "'host': 'db'"),
    ("DB_PASSWORD='corr3ct horse'", "corr3ct", "DB_PASSWORD"),
    ("?X-Amz-Signature=deadbeefcafe&X-Amz-Date=20260101", "deadbeefcafe", "X-Amz-Date=20260101"),
    ("AccountName=acme;AccountKey=abcdEFGH1234==;EndpointSuffix=x", "abcdEFGH1234", "EndpointSuffix=x"),
    ("Server=db;User Id=sa;Password=My$ecret;Encrypt=yes", "My$ecret", "Encrypt=yes"),
    ("OPENAI key sk-proj-abcDEF0123456789abcDEF0123", "abcDEF0123456789", "OPENAI"),
    ("https://hooks.slack.com/services/T000/B000/XXXXXXXXXXXX", "T000/B000", "hooks.slack.com"),
    ("xoxb-123456789012-abcdefGHIJ", "abcdefGHIJ", ""),
    ("glpat-abcDEFghiJKL01234567 refused", "abcDEFghiJKL", "refused"),
    ("pnu_0123456789abcdefghijABCDEFGHIJ012345", "0123456789abcdef", ""),
    ("AIzaSyA0123456789abcdefghijklmnopqrstuv", "SyA0123456789", ""),
    ("the secret is q7Rk2Zp9Xw4Lm8Tn3Vb6Yc1D", "q7Rk2Zp9", "the secret is"),
    ('error: \\"token\\": \\"abcd1234efgh\\"', "abcd1234efgh", "error"),
    ("client_secret => 9f8e7d6c5b", "9f8e7d6c5b", "client_secret"),
]


@pytest.mark.parametrize(("text", "secret", "stays"), LEAKS, ids=[leak[0][:40] for leak in LEAKS])
def test_a_secret_is_masked_and_its_surroundings_stay(text: str, secret: str, stays: str) -> None:
    masked = redact(text)
    assert secret not in masked
    assert MASK in masked
    assert stays in masked


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: HTTP 503 from https://api.example.com:8443/v1/orders?day=2026-11-02",
        "Finished in state Failed('Flow run encountered an exception: ValueError: bad row 17')",
        "run 149ca645-3502-4bee-b18b-98359cad68cf key 0b0f5a7e-8d4e-4c8a-9c64-0d8a4a8f3f2e",
        "MemoryError: Unable to allocate 512. MiB for an array with shape (67108864,) and data type float64",
        "File /srv/flows/telemetry/collector_of_everything_that_happens.py, line 12, in main",
        "KeyError: 'customer_id'",
        "max_tokens: 4096, tokens used 17",
        "401 Unauthorized: credentials were rejected by the warehouse",
        "mail ops@example.com about postgresql://db.internal/sales",
        "rate limited, retry after 30 s; risk-adjusted_value_of_everything",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    if "max_tokens" in text:
        assert "17" in redact(text)
    else:
        assert redact(text) == text


def test_everything_under_a_secret_looking_key_is_masked() -> None:
    value = {
        "env": {
            "DB_PASSWORD": "x1",
            "PREFECT_API_AUTH_STRING": "admin:pw",
            "REGION": "eu",
            "apiKey": {"a": 1},
        },
        "tokens": ["a"],
        "max_tokens": 10,
        "has_token": True,
        "note": "password=hunter2",
        "nested": [{"url": "redis://:pw123@h/0"}, ("a", 1)],
    }
    assert redact_json(value) == {
        "env": {"DB_PASSWORD": MASK, "PREFECT_API_AUTH_STRING": MASK, "REGION": "eu", "apiKey": MASK},
        "tokens": MASK,
        "max_tokens": 10,
        "has_token": True,
        "note": f"password={MASK}",
        "nested": [{"url": f"redis://:{MASK}@h/0"}, ["a", 1]],
    }


@given(st.text(max_size=400))
def test_no_text_breaks_redaction_and_twice_is_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


PIECES = st.lists(
    st.sampled_from(
        [
            "password",
            "=",
            ":",
            " ",
            "'",
            '"',
            "\\",
            "token",
            "abc",
            "=>",
            "://",
            "@",
            "bearer",
            "A1" * 10,
            MASK,
        ]
    ),
    max_size=14,
)


@given(PIECES)
def test_texts_made_of_telling_pieces_are_redacted_once_and_for_all(pieces: list[str]) -> None:
    once = redact("".join(pieces))
    assert redact(once) == once


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_breaks_redaction(value: object) -> None:
    once = redact_json(value)
    assert redact_json(once) == once


def test_a_long_line_of_noise_is_redacted_in_reasonable_time() -> None:
    import time

    for noise in (
        "a" * 200_000,
        "password" * 20_000,
        "://" * 50_000,
        "key=" * 40_000,
        "-----BEGIN " * 10_000,
    ):
        start = time.monotonic()
        redact(noise)
        assert time.monotonic() - start < 5, noise[:20]


def test_the_corpus_is_masked_and_its_look_alikes_stay() -> None:
    forms, plain = secrets(), harmless()
    assert len(forms) >= 200
    assert len(plain) >= 200
    missed = [text for text, secret in forms if secret in redact(text)]
    spoiled = [text for text in plain if redact(text) != text]
    assert len(missed) <= 0.01 * len(forms), missed
    assert len(spoiled) <= 0.02 * len(plain), spoiled


@pytest.mark.parametrize(
    "name",
    ["PGPASSWORD", "dbPassword", "accessToken", "x-api-key", "aws_access_key_id", "JWT_SECRET2", "DB pass"],
)
def test_a_name_tells_in_every_spelling(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "tokenizer",
        "password_policy",
        "secretName",
        "author",
        "primary_key",
        "compass",
        "id",
        "",
    ],
)
def test_a_name_that_only_sounds_so_does_not(name: str) -> None:
    assert not names_a_secret(name)


def test_a_value_in_a_list_of_names_and_values_is_masked() -> None:
    env = [{"name": "DB_PASSWORD", "value": "x1"}, {"name": "REGION", "value": "eu"}, ["password", "x2"]]
    assert redact_json(env) == [
        {"name": "DB_PASSWORD", "value": MASK},
        {"name": "REGION", "value": "eu"},
        ["password", MASK],
    ]


def test_half_a_surrogate_pair_and_a_thousand_levels_are_taken() -> None:
    assert redact("a\ud800b") == "a\ufffdb"
    deep: Any = "x"
    for _ in range(1000):
        deep = [deep]
    told = redact_json(deep)
    assert TOO_DEEP in str(told)


def test_a_text_without_end_is_cut() -> None:
    once = redact("word " * LONGEST)
    assert len(once) <= LONGEST
    assert redact(once) == once


BLOCK = [
    "starting",
    "-----BEGIN RSA PRIVATE KEY-----",
    "MIIEowIBAAKCAQEAq83vEjRWq83vEjRWq83vEjRWq83vEjRWq83vEjRWq83vEjRW",
    "q83vEjRWAB==",
    "-----END RSA PRIVATE KEY-----",
    "done",
]


def test_a_key_block_over_several_lines_keeps_none_of_them() -> None:
    stream = LineStream()
    told = stream.redacted(BLOCK)
    assert (told[0], told[-1]) == ("starting", "done")
    assert not any("q83v" in line for line in told)
    assert not stream.inside


def test_a_key_block_in_two_batches_and_one_whose_beginning_is_not_there() -> None:
    stream = LineStream()
    told = stream.redacted(BLOCK[:3]) + stream.redacted(BLOCK[3:])
    assert not any("q83v" in line for line in told)
    assert told[-1] == "done"
    late = LineStream().redacted(BLOCK[2:])
    assert not any("q83v" in line for line in late)
    assert late[-1] == "done"


def test_a_block_without_an_end_does_not_swallow_the_run() -> None:
    told = LineStream().redacted(["-----BEGIN PRIVATE KEY-----", "Retrying in 5 s, attempt 2", "MIIEvQIB"])
    assert told[1:] == ["Retrying in 5 s, attempt 2", "MIIEvQIB"]
