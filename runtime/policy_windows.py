"""Windows of a policy: named times, weekly or dated, in a time zone, as they are written in YAML."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""Names of the days, Monday first."""

_DAY_MINUTES = 24 * 60
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeeklyRange(_Strict):
    """A time of the day on some days of the week, as a clock on the wall shows it.

    A range whose end is not after its start goes on past midnight and belongs to the day it begins on.

    Attributes:
        days: Days on which it begins (0 is Monday); written as names and ranges (``[mon-fri, sun]``).
        start: Minutes after midnight, written ``from: "08:00"``.
        end: Minutes after midnight, excluded, written ``to: "18:00"``; ``"24:00"`` is the end of the day.
    """

    days: tuple[int, ...] = Field(default=tuple(range(7)), min_length=1)
    start: int = Field(alias="from")
    end: int = Field(alias="to")

    @field_validator("days", mode="before")
    @classmethod
    def _read_days(cls, value: Any) -> tuple[int, ...]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            raise ValueError(f"days are a list of {', '.join(DAYS)} or ranges such as mon-fri")
        return tuple(sorted({day for name in names for day in _days(name)}))

    @field_validator("start", "end", mode="before")
    @classmethod
    def _read_clock(cls, value: Any) -> int:
        # YAML reads an unquoted 22:00 as the number 1320, which is the same in minutes.
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _DAY_MINUTES:
            if 0 < value < 60:  # no clock time is read as that
                raise ValueError(f'a time of the day is expected: write "{value:02}:00" for {value} o\'clock')
            return value
        clock = _CLOCK.fullmatch(value) if isinstance(value, str) else None
        minutes = int(clock[1]) * 60 + int(clock[2]) if clock and int(clock[2]) < 60 else _DAY_MINUTES + 1
        if minutes > _DAY_MINUTES:
            raise ValueError('a time of the day is expected, from "00:00" to "24:00"')
        return minutes

    @model_validator(mode="after")
    def _some_time(self) -> WeeklyRange:
        if self.start == self.end or self.start == _DAY_MINUTES:
            raise ValueError('it begins when it ends; a whole day is from "00:00" to "24:00"')
        return self

    def holds(self, local: datetime) -> bool:
        """Whether a moment, in the zone of the window, is within."""
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        yesterday = (today - 1) % 7
        return (today in self.days and minute >= self.start) or (yesterday in self.days and minute < self.end)


class DatedRange(_Strict):
    """One stretch of time, from a moment to another.

    A moment without an offset is one of the window's zone; a date alone begins with its first minute, and as
    an end it is included.

    Attributes:
        start: The beginning, written ``from``.
        end: The end, excluded where it has a time of the day, written ``to``.
        reason: What it is for.
    """

    start: datetime | date = Field(alias="from")
    end: datetime | date = Field(alias="to")
    reason: str = ""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _read_moment(cls, value: Any) -> datetime | date:
        if isinstance(value, datetime | date):
            return value
        try:
            text = str(value)
            return (
                date.fromisoformat(text) if len(text) == len("2026-12-31") else datetime.fromisoformat(text)
            )
        except ValueError as error:
            raise ValueError(
                "a date or a moment is expected, such as 2026-12-31 or 2026-12-31T18:00"
            ) from error

    def bounds(self, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """The first moment of it and the first one after it (UTC).

        Raises:
            ValueError: If a local time does not exist in the zone, or comes twice, or the range is empty.
        """
        last = self.end
        try:
            if not isinstance(last, datetime):
                last += timedelta(days=1)
            start, end = _moment(self.start, zone), _moment(last, zone)
        except OverflowError as error:
            raise ValueError(
                f"{self.start} to {self.end} reaches beyond the calendar, which ends with the year 9999: "
                "a later end than 2999-12-31 is hardly meant"
            ) from error
        if start >= end:
            raise ValueError(f"it ends at {self.end} before it begins at {self.start}")
        return start, end


class Window(_Strict):
    """A named time: open while a weekly or a dated range holds, and no freeze does.

    Weekly ranges follow the clock on the wall. Where clocks are put forward, the part of a range that no
    clock shows does not take place; where they are put back, the hour that comes twice is within both times.

    Attributes:
        zone: IANA time zone that its times are in.
        weekly: Ranges of each week.
        dated: Ranges that come once.
        freezes: Ranges in which it is closed, whatever else holds.
    """

    zone: str = "UTC"
    weekly: tuple[WeeklyRange, ...] = ()
    dated: tuple[DatedRange, ...] = ()
    freezes: tuple[DatedRange, ...] = ()

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (LookupError, OSError, ValueError) as error:
            near = get_close_matches(value, available_timezones(), n=1)
            hint = f"is {near[0]!r} meant?" if near else "such as Europe/Berlin or UTC is expected"
            raise ValueError(f"{value!r} is not an IANA time zone ({hint})") from error
        return value

    @model_validator(mode="after")
    def _sound(self) -> Window:
        if not self.weekly and not self.dated:
            raise ValueError("it is never open: give it weekly or dated ranges")
        for dated in (*self.dated, *self.freezes):
            dated.bounds(ZoneInfo(self.zone))
        return self

    def is_open(self, moment: datetime) -> bool:
        """Whether it is open at a moment, which has a time zone."""
        zone = ZoneInfo(self.zone)
        if any(_within(freeze, moment, zone) for freeze in self.freezes):
            return False
        local = moment.astimezone(zone)
        return any(weekly.holds(local) for weekly in self.weekly) or any(
            _within(dated, moment, zone) for dated in self.dated
        )


def open_windows(windows: dict[str, Window], moment: datetime) -> dict[str, bool]:
    """Say of each window whether it is open at a moment."""
    return {name: window.is_open(moment) for name, window in windows.items()}


def _days(name: Any) -> list[int]:
    first, _, last = str(name).lower().partition("-")
    if first not in DAYS or (last and last not in DAYS):
        raise ValueError(f"{name!r} is neither a day ({', '.join(DAYS)}) nor a range such as mon-fri")
    start = DAYS.index(first)
    length = (DAYS.index(last) - start) % 7 if last else 0
    return [(start + offset) % 7 for offset in range(length + 1)]


def _within(dated: DatedRange, moment: datetime, zone: ZoneInfo) -> bool:
    start, end = dated.bounds(zone)
    return start <= moment < end


def _moment(value: datetime | date, zone: ZoneInfo) -> datetime:
    if not isinstance(value, datetime):
        return datetime.combine(value, time(), tzinfo=zone).astimezone(UTC)
    if value.tzinfo is not None:
        return value.astimezone(UTC)
    local = value.replace(tzinfo=zone)
    if local.utcoffset() != local.replace(fold=1).utcoffset():
        exists = local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == value
        raise ValueError(
            f"{value:%Y-%m-%dT%H:%M} {'comes twice' if exists else 'does not exist'} in {zone.key}, where "
            f"clocks change: write it with an offset, such as {value:%Y-%m-%dT%H:%M}+00:00"
        )
    return local.astimezone(UTC)
