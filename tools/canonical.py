"""Canonical JSON (RFC 8785): the same bytes for the same value, everywhere."""

from __future__ import annotations

import hashlib
import math

import rfc8785
from pydantic import JsonValue

_SAFE = 2**53 - 1
"""Largest whole number that JSON keeps exactly (RFC 8785, section 3.2.2.3)."""


def safe_json(value: JsonValue) -> JsonValue:
    """Return the value with numbers that canonical JSON cannot hold written as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_SAFE <= value <= _SAFE else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [safe_json(item) for item in value]
    if isinstance(value, dict):
        return {str(safe_json(name)): safe_json(item) for name, item in value.items()}
    return value


def canonical(value: JsonValue) -> bytes:
    """The canonical bytes of a value.

    Raises:
        ValueError: If it has no canonical form.
    """
    return rfc8785.dumps(value)


def digest(value: JsonValue) -> str:
    """SHA-256 of the canonical bytes of a value, in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()
