"""Moments as people type them: a date, a date and time, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNIT = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str | None) -> datetime | None:
    """Read ``2026-11-01``, ``2026-11-01T12:30`` (UTC where no zone is said) or ``30d`` (ago; s, m, h, d, w).

    Raises:
        typer.BadParameter: If it is none of these.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip().lower())
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNIT[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text.strip())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is no moment: write 2026-11-01, 2026-11-01T12:30 or 30d (ago; s, m, h, d or w)"
        ) from error


def given(text: str) -> datetime:
    """Read a moment that must be given."""
    found = moment(text)
    assert found is not None
    return found
