"""Moments in options are read in UTC, and what is none is refused in one line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import typer

from watchkeeper.cli.moments import moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:30+02:00", datetime(2026, 11, 1, 10, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_in_utc(text: str, expected: datetime) -> None:
    assert moment(text) == expected


@pytest.mark.parametrize("text", ["soon", "0001-01-01T00:00+05:00", "99999999d"])
def test_what_is_no_moment_is_told(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no moment"):
        moment(text)
