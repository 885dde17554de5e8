"""Time and names, handed in where tests need their own."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Tells the time, aware of its zone."""

ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Digits and letters that no one mistakes for another when an id is read aloud or typed."""


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def short_id(length: int) -> str:
    """A random name, short enough to be typed."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
