"""A clock for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 12, tzinfo=UTC)


class FakeClock:
    """A clock that stands until it is set."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **spans: float) -> None:
        """Go on by so many ``seconds``, ``minutes``, ..."""
        self.at += timedelta(**spans)
