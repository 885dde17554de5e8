"""Times as people write them in YAML: strictly, so that nothing is guessed about when somebody is called."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?")
_LONGEST = timedelta(days=30)


def parse_duration(value: Any) -> timedelta:
    """Read a duration: a whole number and a unit, as in ``90s``, ``15m``, ``2h``, ``1d``.

    Raises:
        ValueError: If it is anything else, or longer than 30 days.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration is a number and a unit (s, m, h or d), such as 15m")
    duration = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    if duration > _LONGEST:
        raise ValueError(f"a duration is at most {_LONGEST.days} days")
    return duration


def write_duration(duration: timedelta) -> str:
    """Write a duration of whole seconds with the largest unit that fits."""
    seconds = round(duration.total_seconds())
    unit = next((name for name in ("d", "h", "m") if seconds % _UNITS[name] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"


def parse_time_of_day(value: Any) -> time:
    """Read a time of day: ``"09:00"``.

    Raises:
        ValueError: If it is anything else; YAML reads 18:00 without quotes as the number 1080.
    """
    if isinstance(value, time):
        return value
    match = _TIME_OF_DAY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a time of day is written in quotes, with hour and minute, such as '09:00'")
    return time(int(match[1]), int(match[2]))


def parse_moment(value: Any) -> datetime:
    """Read a date with a time of day: ``2026-12-24 09:00``; one without an offset stays local.

    Raises:
        ValueError: If it is anything else, or there is no such date.
    """
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError("a moment is a date with a time of day, such as 2026-12-24 09:00")
    return datetime.fromisoformat(value)


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        ValueError: If there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("there is no such time zone; an IANA name is expected, such as Europe/Berlin") from (
            error
        )


def local_moment(value: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment that a clock of a zone means, in UTC; one with an offset is what it says.

    Raises:
        ValueError: If clocks skip that time on that day, or show it twice.
    """
    if value.tzinfo is not None:
        return value.astimezone(UTC)
    early, late = (value.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if early.utcoffset() == late.utcoffset():
        return early.astimezone(UTC)
    skipped = early.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != value
    what = "clocks skip it on that day" if skipped else "clocks show it twice on that day"
    raise ValueError(
        f"{value:%Y-%m-%d %H:%M} does not tell a moment in {zone.key}: {what}; write an offset, as in "
        f"{value:%Y-%m-%d %H:%M}+00:00"
    )


def _check_zone(name: str) -> str:
    zone_of(name)
    return name


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(write_duration)]
TimeOfDay = Annotated[
    time, BeforeValidator(parse_time_of_day), PlainSerializer(lambda value: f"{value:%H:%M}")
]
Moment = Annotated[datetime, BeforeValidator(parse_moment)]
ZoneName = Annotated[str, AfterValidator(_check_zone)]
