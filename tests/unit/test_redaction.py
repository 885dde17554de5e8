"""Secrets are taken out; what only sounds like one stays."""

import time

import pytest

from watchkeeper.tools.redaction import REDACTED, is_secret_name, redact, redact_text


@pytest.mark.parametrize(
    "name",
    [
        "API_KEY",
        "AWS_SECRET",
        "Authorization",
        "DB_PASSWORD",
        "HTTPToken",
        "X-Api-Key",
        "access-token",
        "apiKey",
        "client_secret",
        "dbPassword",
        "password",
        "private_key",
        "secret_access_key",
        "token",
    ],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["prompt_tokens", "max_tokens", "key", "keyboard", "passed", "host", "compass", "primary_key"]
)
def test_other_names_are_left_alone(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abc.DEF-123_456", "abc.DEF-123_456"),
        ("basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
        ("postgresql://app:hunter2@db:5432/x", "hunter2"),
        ("redis://:hunter2@cache/0", "hunter2"),
        ("PGPASSWORD=hunter2 psql", "hunter2"),
        ('{"api_key": "hunter2 three"}', "hunter2 three"),
        ("secret: hunter2, next", "hunter2"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----", "hunter2"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2 without an end", "hunter2"),
        ("key AKIAABCDEFGHIJKLMNOP used", "AKIAABCDEFGHIJKLMNOP"),
        ("ghp_abcdefghijklmnopqrstuvwx", "ghp_abcdefghijklmnopqrstuvwx"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJzdWIiOiIxIn0"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_text(text: str, secret: str) -> None:
    assert secret not in redact_text(text)
    assert REDACTED in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080/health answers 200",
        "service api restarted at 12:30:05",
        "see user@example.org",
        "GET http://web:80/a?b=c@d",
        "the token bucket is empty",
    ],
)
def test_plain_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_secrets_are_found_at_any_depth_and_empty_ones_stay_visible() -> None:
    given = {"a": [{"password": "x", "n": 1}], "token": {"inner": "y"}, "secret": "", "passphrase": None}
    assert redact(given) == {
        "a": [{"password": REDACTED, "n": 1}],
        "token": REDACTED,
        "secret": "",
        "passphrase": None,
    }


def test_long_hostile_text_is_read_in_time() -> None:
    texts = [
        "a" * 200_000,
        "password" * 25_000,
        "a://" * 50_000,
        "-----BEGIN PRIVATE KEY-----" * 5_000,
        "eyJ" * 60_000,
    ]
    started = time.monotonic()
    for text in texts:
        redact_text(text)
    assert time.monotonic() - started < 5
