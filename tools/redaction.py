"""Secrets are taken out of what is kept: by the name they stand under, and by what they look like."""

from __future__ import annotations

import re
from itertools import pairwise

from pydantic import JsonValue

REDACTED = "[redacted]"

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = frozenset(
    {
        "authorization",
        "cookie",
        "cookies",
        "credential",
        "credentials",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pwd",
        "secret",
        "secrets",
        "token",
        "apikey",
        "privatekey",
    }
)
_KEY_OWNERS = frozenset({"api", "private", "secret", "access", "signing", "encryption"})

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        REDACTED,
    ),
    (re.compile(r"(?i)\b(bearer|basic)[ \t]+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {REDACTED}"),
    (
        re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://)[^\s/?#@:\"']{0,256}:[^\s/?#@\"']{1,256}@"),
        rf"\1{REDACTED}@",
    ),
    (
        re.compile(
            r"(?i)\b([A-Z0-9_.-]{0,40}(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key))"
            r"([\"']?[ \t]{0,3}[=:][ \t]{0,3})(\"[^\"\n]{1,512}\"|'[^'\n]{1,512}'|[^\s\"',;&]{1,512})"
        ),
        rf"\1\2{REDACTED}",
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), REDACTED),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), REDACTED),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|sk-|xox[abpr]-|hf_)[A-Za-z0-9_-]{16,}"), REDACTED),
)


def redact_text(text: str) -> str:
    """Return a text without the secrets that can be told by their look."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact(value: JsonValue) -> JsonValue:
    """Return a JSON value without secrets, told by their names or their look."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return [redact(item) for item in value]
    if isinstance(value, dict):
        return {
            redact_text(name): _hidden(item) if is_secret_name(name) else redact(item)
            for name, item in value.items()
        }
    return value


def redact_looks(value: JsonValue) -> JsonValue:
    """Return a JSON value without the secrets that can be told by their look; names and types stay."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return [redact_looks(item) for item in value]
    if isinstance(value, dict):
        return {name: redact_looks(item) for name, item in value.items()}
    return value


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is a secret: ``dbPassword``, ``API_KEY``; not ``prompt_tokens``."""
    words = [word.lower() for word in _WORD.findall(name)]
    if _SECRET_WORDS.intersection(words):
        return True
    return any(owner in _KEY_OWNERS and key in {"key", "keys"} for owner, key in pairwise(words))


def _hidden(value: JsonValue) -> JsonValue:
    if value is None or isinstance(value, bool) or value == "":
        return value
    return REDACTED
