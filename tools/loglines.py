"""Lines of logs: when they were written and how severe they are, in the formats that are common."""

from __future__ import annotations

import calendar
import json
import re
import time as clock
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class LineSeverity(StrEnum):
    """Severity of a log line, the least first."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for debug to 4 for critical."""
        return list(LineSeverity).index(self)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line.

    Attributes:
        message: What it says; of a JSON line the message alone.
        time: When it was written (seconds since 1970), if it says so.
        severity: How severe it is, if it says so or if its words leave no doubt.
    """

    message: str
    time: float | None
    severity: LineSeverity | None


# A month's name is that of the C locale in a log, whatever the locale of this process.
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, start=1)}
_HMS = r"(?P<h>\d\d):(?P<mi>\d\d):(?P<s>\d\d)(?:[.,](?P<f>\d{1,9}))?"
_MON = r"(?P<mon>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_ZONE = r"(?:\s?(?P<z>Z|[+-](?:0\d|1[0-4]):?[0-5]\d)(?!\d))?"
_FORMATS = tuple(
    re.compile(pattern)
    for pattern in (
        # ISO 8601, RFC 5424, Python logging, nginx errors, gunicorn
        rf"(?<![\d.])(?P<y>\d{{4}})[-/](?P<m>\d\d)[-/](?P<d>\d\d)[T ]{_HMS}{_ZONE}",
        # syslog (RFC 3164): no year
        rf"^(?:<\d{{1,3}}>)?{_MON} +(?P<d>\d{{1,2}}) {_HMS}",
        # Apache errors, ctime
        rf"\b[A-Z][a-z]{{2}} {_MON} +(?P<d>\d{{1,2}}) {_HMS} (?P<y>\d{{4}})",
        # Apache and nginx access
        rf"\b(?P<d>\d\d)/{_MON}/(?P<y>\d{{4}}):{_HMS}{_ZONE}",
        # Redis, RFC 2822
        rf"\b(?P<d>\d{{1,2}}) {_MON} (?P<y>\d{{4}}) {_HMS}{_ZONE}",
        # glog, klog: no year
        rf"^[IWEFD](?P<m>\d\d)(?P<d>\d\d) {_HMS}",
    )
)
_EPOCH = re.compile(r"^(?P<word>\S{1,8} )?\[?(?P<e>\d{10})(?:(?P<ms>\d{3})|[.,](?P<f>\d{1,9}))?(?![\d.])")
_EPOCH_FIELD = re.compile(
    r"\b(?:ts|time|timestamp)=\"?(?P<e>\d{10})(?:(?P<ms>\d{3})|\.(?P<f>\d{1,9}))?(?!\d)"
)
_TIME_WITHIN = 160  # characters from the start of a line
_DAY = 86400.0
_LONGEST_AGO = 3653 * _DAY  # how long before now a line was written whose time is a bare number
_YEAR_9999 = float(calendar.timegm((9999, 1, 1, 0, 0, 0)))

_LEVELS: dict[str, LineSeverity] = {}
for _severity, _words in (
    (LineSeverity.CRITICAL, "emerg emergency alert crit critical fatal panic severe"),
    (LineSeverity.ERROR, "err error failure"),
    (LineSeverity.WARNING, "warn warning"),
    (LineSeverity.INFO, "notice info information log statement success"),
    (LineSeverity.DEBUG, "debug trace verbose fine finer finest"),
):
    _LEVELS |= dict.fromkeys(_words.split(), _severity)
_WORDS = "|".join(sorted(_LEVELS, key=len, reverse=True))
_LEVEL = re.compile(
    rf"(?:^|(?<=[\s\[(<|:\"'=-]))(?:(?P<upper>{_WORDS.upper()})\d?(?=$|[\s\])>|:,\"'-])"
    rf"|(?<=\[)(?:\w+:)?(?P<bracket>(?i:{_WORDS}))(?=[\]: ])"
    rf"|(?P<colon>(?i:{_WORDS}))(?=:\s)"
    rf"|(?<=(?i:level)=)\"?(?P<field>(?i:{_WORDS}))\b"
    rf"|(?<=(?i:severity)=)\"?(?P<other>(?i:{_WORDS}))\b)"
)
_LEVEL_WITHIN = 200
_SYSLOG_PRIORITY = re.compile(r"^<(\d{1,3})>")
_GLOG = re.compile(r"^([IWEFD])\d{4} \d\d:")
_ACCESS = re.compile(r"\" (\d{3}) (?:\d+|-)")
_TROUBLE = re.compile(
    r"(?<!\bno )(?<!\b0 )(?<!without )(?<!\bif )"
    r"\b(?:error|exception|traceback|fatal|panic|fail(?:ed|ure)|segfault|cannot|could not|unable to)\b"
)
_SYSLOG_LEVELS = (
    *(LineSeverity.CRITICAL,) * 3,
    LineSeverity.ERROR,
    LineSeverity.WARNING,
    *(LineSeverity.INFO,) * 2,
    LineSeverity.DEBUG,
)
_JSON_TIMES = (
    "__REALTIME_TIMESTAMP",
    "@timestamp",
    "timestamp",
    "time",
    "ts",
    "asctime",
    "datetime",
    "date",
    "t",
)
_JSON_LEVELS = ("level", "severity", "levelname", "lvl", "log.level", "loglevel", "PRIORITY")
_JSON_MESSAGES = ("MESSAGE", "message", "msg", "log", "event", "error", "err", "exception")
_JSON_LIMIT = 20_000  # characters of a line that are still parsed as JSON


def parse_line(text: str, *, now: float, utc_offset: float) -> LogLine:
    """Read the time and the severity of a line.

    Args:
        text: The line, without its end.
        now: The present, for formats without a year (seconds since 1970).
        utc_offset: Seconds by which local time is ahead of UTC, for times without a zone.
    """
    if text.startswith("{") and text.rstrip().endswith("}") and len(text) <= _JSON_LIMIT:
        line = _from_json(text, now, utc_offset)
        if line is not None:
            return line
    return LogLine(text, parse_time(text, now=now, utc_offset=utc_offset), parse_severity(text))


def parse_time(text: str, *, now: float, utc_offset: float) -> float | None:
    """Find the time at the start of a line (seconds since 1970), or None."""
    head = text[:_TIME_WITHIN]
    found = _EPOCH.search(head)
    if found:
        moment = _epoch(found.group("e"), found.group("ms"), found.group("f"))
        # Other numbers have ten digits, too: those of orders, users and telephones.
        named = any(letter.islower() for letter in found.group("word") or "")
        if (now - _LONGEST_AGO if named else 0) <= moment <= now + _DAY:
            return moment
    found = _EPOCH_FIELD.search(head)
    if found:
        return _epoch(found.group("e"), found.group("ms"), found.group("f"))
    for pattern in _FORMATS:
        match = pattern.search(head)
        if match:
            return _from_parts(match.groupdict(), now, utc_offset)
    return None


def parse_severity(text: str) -> LineSeverity | None:
    """Find how severe a line is: by what it says of itself, else by words that leave no doubt."""
    found = _SYSLOG_PRIORITY.match(text)
    if found:
        return _SYSLOG_LEVELS[int(found.group(1)) % 8]
    found = _GLOG.match(text)
    if found:
        return {"I": LineSeverity.INFO, "W": LineSeverity.WARNING, "D": LineSeverity.DEBUG}.get(
            found.group(1), LineSeverity.ERROR if found.group(1) == "E" else LineSeverity.CRITICAL
        )
    found = _LEVEL.search(text[:_LEVEL_WITHIN])
    if found:
        return _LEVELS[next(word for word in found.groups() if word).lower()]
    found = _ACCESS.search(text)
    if found and "HTTP/" in text:
        return LineSeverity.ERROR if found.group(1)[0] == "5" else LineSeverity.INFO
    return LineSeverity.ERROR if _TROUBLE.search(text[:1000].lower()) else None


def _epoch(whole: str, milliseconds: str | None, fraction: str | None) -> float:
    return float(f"{whole}.{milliseconds or fraction or 0}")


def _from_parts(parts: dict[str, str | None], now: float, utc_offset: float) -> float | None:
    name = parts.get("mon")
    month = _MONTHS[name] if name else int(parts["m"] or 0)
    day, hour, minute, second = (int(parts[key] or 0) for key in ("d", "h", "mi", "s"))
    fraction = float(f"0.{parts.get('f') or 0}")
    zone = parts.get("z")
    offset = utc_offset
    if zone == "Z":
        offset = 0.0
    elif zone:
        sign = -1 if zone[0] == "-" else 1
        offset = sign * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)

    def seconds(year: int) -> float | None:
        try:
            moment = datetime(year, month, day, hour, minute, min(second, 59))
        except ValueError:
            return None
        found = calendar.timegm(moment.timetuple()) + fraction - offset
        return found if 0 <= found < _YEAR_9999 else None

    if parts.get("y"):
        return seconds(int(parts["y"] or 0))
    year = clock.gmtime(now + utc_offset).tm_year
    found = seconds(year)
    # Without a year, a time of tomorrow or later was written last year.
    return found if found is not None and found <= now + _DAY else seconds(year - 1)


def _from_json(text: str, now: float, utc_offset: float) -> LogLine | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    time = None
    for key in _JSON_TIMES:
        value = record.get(key)
        if isinstance(value, (int, float)) or (isinstance(value, str) and value.isdecimal()):
            time = _scaled(value)
        elif isinstance(value, str):
            time = parse_time(value, now=now, utc_offset=utc_offset)
        if time is not None:
            break
    level = next((record[key] for key in _JSON_LEVELS if key in record), None)
    said = [_message(record[key]) for key in _JSON_MESSAGES if key in record]
    message = " ".join(part for part in said if part) or text
    return LogLine(
        message, time, _json_severity(level, priority="PRIORITY" in record) or parse_severity(message)
    )


def _scaled(number: float | str) -> float | None:
    """Bring seconds, milliseconds, microseconds or nanoseconds since 1970 to seconds."""
    try:
        value = float(number)
    except OverflowError:
        return None
    for _ in range(3):
        if value < 1e11:
            break
        value /= 1000
    return value if 9e8 < value < 1e11 else None


def _message(value: object) -> str:
    if isinstance(value, list):  # journald writes what is not UTF-8 as a list of bytes
        numbers = [item for item in value if isinstance(item, int) and 0 <= item < 256]
        return bytes(numbers).decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def _json_severity(level: object, *, priority: bool) -> LineSeverity | None:
    if isinstance(level, str) and not (level.isdecimal() and len(level) < 10):
        return _LEVELS.get(level.lower())
    if not isinstance(level, (int, str)):
        return None
    number = int(level)
    if priority or number < 8:
        return _SYSLOG_LEVELS[number % 8]
    # Bunyan, pino and Python number their levels in tens.
    steps = ((60, LineSeverity.CRITICAL), (50, LineSeverity.ERROR), (40, LineSeverity.WARNING))
    return next((severity for least, severity in steps if number >= least), LineSeverity.INFO)
