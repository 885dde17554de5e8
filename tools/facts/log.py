"""What logs say: counts by severity and class, samples for people, and text that should not be there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from watchkeeper.tools.errors import CollectError, InventoryError
from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.local import readable_log, require_local
from watchkeeper.tools.logclasses import OTHER_KIND, OTHER_SAYS, OTHER_SEVERITY, RULES, LogClass, classify
from watchkeeper.tools.logfiles import read_tail, siblings
from watchkeeper.tools.loglines import LineSeverity, parse_line
from watchkeeper.tools.schema import known
from watchkeeper.tools.suspicion import Suspicion, suspicion
from watchkeeper.tools.text import counted, shown_path, span_text, visible

READ_BUDGET = 4 * 1024 * 1024  # bytes of logs that one call looks at, about 30,000 lines
SAMPLES = 20  # kinds of lines that are kept for people
SAMPLE_LENGTH = 300  # characters of each
UNDATED_LINES = 200  # of a file without a single time: the last ones, which may be recent
SUSPICIOUS_LIMIT = 20  # suspicious lines kept for people
SUSPICIOUS_FINDINGS = 3  # findings made of them
CHECKED_CHARACTERS = 1_500_000  # of different lines looked at for suspicious text, about a second

_NUMBERS = re.compile(r"\b0x[0-9a-fA-F]+\b|\d+")


class LogSearchArguments(Arguments):
    """Of a service all logs, or one log file; exactly one of the two is given."""

    service: Annotated[str | None, known("service")] = None
    path: Annotated[str | None, known("log")] = None
    since_seconds: int = Field(default=600, ge=1, le=7 * 86400, description="how far back, in seconds")
    severity: LineSeverity = Field(default=LineSeverity.WARNING, description="the least severity shown")
    pattern: str | None = Field(
        default=None, min_length=1, max_length=100, description="plain text that a line must contain"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.service is None) == (self.path is None):
            raise ValueError("give either a service or a path")
        return self


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _FileRaw(_Part):
    path: str
    error: str = ""
    lines: tuple[str, ...] = ()
    first_line: int | None = None
    complete: bool = False
    modified: float = 0.0


class _SearchRaw(_Part):
    subject: str
    now: float
    utc_offset: float
    files: tuple[_FileRaw, ...]


class LogFile(_Part):
    """A file that was read; ``complete`` says whether it was read back to the start of the window."""

    path: str
    lines: int
    complete: bool
    error: str = ""


class ClassCount(_Part):
    """How many lines are of a class, and when the first and the last of them were written, if they say."""

    count: int
    first: datetime | None
    last: datetime | None


class LogSample(_Part):
    """The last of several lines that differ in numbers alone; ``text`` was written by others."""

    file: str
    line: int | None
    time: datetime | None
    severity: LineSeverity | None
    log_class: LogClass | None
    count: int
    text: str


class SuspiciousLine(_Part):
    """A line that speaks to its reader; ``text`` was written by others and is for people only."""

    file: str
    line: int | None
    reason: Suspicion
    text: str


class LogSearchResult(Result):
    """What the logs of the window say.

    Attributes:
        subject: The service, or the path.
        now: When they were read.
        window_seconds: How far back.
        files: What was read, the newest first.
        lines: Lines within the window (that contain the pattern, if one was given).
        undated: How many of them stand in files without any time.
        by_severity: How many there are of each severity; ``unknown`` says nothing of itself.
        by_class: What lines of trouble are about: warnings and worse, and those without a severity
            whose words match a class.
        first: Time of the first line within the window.
        last: Time of the last one.
        samples: The most frequent lines of at least the severity asked for.
        suspicious: Lines that speak to their reader.
        unchecked: Lines that were too many to be looked at for suspicious text.
    """

    subject: str
    now: datetime
    window_seconds: int
    files: tuple[LogFile, ...]
    lines: int
    undated: int
    by_severity: dict[str, int]
    by_class: dict[LogClass, ClassCount]
    first: datetime | None
    last: datetime | None
    samples: tuple[LogSample, ...]
    suspicious: tuple[SuspiciousLine, ...]
    unchecked: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """One line within the window."""

    file: str
    line: int | None
    text: str
    message: str
    time: float | None
    severity: LineSeverity | None
    continues: bool

    @property
    def shape(self) -> str:
        """The message without its numbers: lines of one shape are about the same thing."""
        return _NUMBERS.sub("0", self.message)


@dataclass(slots=True)
class _Group:
    count: int = 0
    times: list[float] = field(default_factory=list)

    def add(self, line: _Seen) -> None:
        self.count += 1
        if line.time is not None:
            self.times.append(line.time)


class LogSearch(Fact[LogSearchArguments, LogSearchResult]):
    """Search logs by time and severity, from their end, through rotated and compressed files."""

    name = "log.search"
    summary = "what the logs say"
    provenance = Provenance.UNTRUSTED
    plain_findings = True
    kinds = frozenset({*(rule.kind for rule in RULES), OTHER_KIND, FindingKind.SUSPICIOUS_TEXT})
    arguments_type = LogSearchArguments
    result_type = LogSearchResult

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Search the logs of each service that has some."""
        return [{"service": service.name} for service in spec.services if service.logs]

    def collect(self, target: Target, arguments: LogSearchArguments) -> Raw:
        """Read the ends of the log files.

        Raises:
            CollectError: If there is no log, none may be read, or none can be read.
        """
        require_local(target, self.name)
        now = time.time()
        offset = float(time.localtime(now).tm_gmtoff)
        since = now - arguments.since_seconds
        subject, logs = self._logs(target.spec, arguments)

        def is_older(line: str) -> bool | None:
            written = parse_line(line, now=now, utc_offset=offset).time
            return None if written is None else written < since

        files: list[Any] = []
        budget = READ_BUDGET // len(logs)
        for log in logs:
            left = budget
            for file in (log, *siblings(log, since=since)):
                try:
                    tail = read_tail(file, budget=left, is_older=is_older)
                    modified = file.stat().st_mtime
                except (CollectError, OSError) as error:
                    files.append({"path": str(file), "error": str(error)})
                    continue
                files.append(
                    {
                        "path": str(file),
                        "lines": list(tail.lines),
                        "first_line": tail.first_line,
                        "complete": tail.complete,
                        "modified": modified,
                    }
                )
                left -= sum(len(line) for line in tail.lines)
                if left <= 0 or tail.reached:
                    break
        return {"subject": subject, "now": now, "utc_offset": offset, "files": files}

    def interpret(self, raw: Raw, arguments: LogSearchArguments) -> LogSearchResult:
        """Count, classify and sample the lines of the window.

        Raises:
            CollectError: If not a single file could be read.
        """
        read = _SearchRaw.model_validate(raw)
        errors = [file.error for file in read.files if file.error]
        if len(errors) == len(read.files):
            raise CollectError("; ".join(errors) or "there is no log file")
        since = read.now - arguments.since_seconds
        wanted = (arguments.pattern or "").lower()
        lines = [
            line
            for file in reversed(read.files)
            for line in _window(file, since=since, now=read.now, offset=read.utc_offset)
            if wanted in line.text.lower()
        ]
        severities: dict[str, int] = {}
        classes: dict[LogClass, _Group] = {}
        samples: dict[str, list[_Seen]] = {}
        kinds: dict[str, LogClass | None] = {}
        for line in lines:
            name = line.severity.value if line.severity else "unknown"
            severities[name] = severities.get(name, 0) + 1
            shape = line.shape
            if shape not in kinds:
                kinds[shape] = classify(line.message)
            log_class = _trouble(line, kinds[shape])
            if log_class is not None:
                classes.setdefault(log_class, _Group()).add(line)
            if log_class if line.severity is None else line.severity.rank >= arguments.severity.rank:
                samples.setdefault(shape, []).append(line)
        suspicious, unchecked = _suspicious(lines)
        times = [line.time for line in lines if line.time is not None]
        frequent = sorted(samples.values(), key=len, reverse=True)
        return LogSearchResult(
            subject=read.subject,
            now=_moment(read.now),
            window_seconds=arguments.since_seconds,
            files=tuple(
                LogFile(
                    path=visible(file.path),
                    lines=len(file.lines),
                    complete=file.complete,
                    error=visible(file.error),
                )
                for file in read.files
            ),
            lines=len(lines),
            undated=len(lines) - len(times),
            by_severity=dict(sorted(severities.items())),
            by_class={key: _count(classes[key]) for key in LogClass if key in classes},
            first=_moment(min(times)) if times else None,
            last=_moment(max(times)) if times else None,
            samples=tuple(_sample(group, kinds) for group in frequent[:SAMPLES]),
            suspicious=tuple(suspicious[:SUSPICIOUS_LIMIT]),
            unchecked=unchecked,
            cut=bool(
                errors
                or unchecked
                or len(frequent) > SAMPLES
                or len(suspicious) > SUSPICIOUS_LIMIT
                or not all(file.complete for file in read.files)
            ),
        )

    def findings(self, result: LogSearchResult, arguments: LogSearchArguments) -> Iterator[Finding]:
        """Say how many lines are of which class and how old, and where suspicious text stands."""
        window = span_text(result.window_seconds)
        said = {rule.log_class: (rule.kind, rule.says, rule.severity) for rule in RULES}
        said[LogClass.OTHER] = (OTHER_KIND, OTHER_SAYS, OTHER_SEVERITY)
        about = result.subject if arguments.service else shown_path(result.subject)
        # What was not read back to the start of the window may hold more of the same.
        least = "" if all(file.complete for file in result.files) else "at least "
        for log_class, group in result.by_class.items():
            kind, says, severity = said[log_class]
            verb = "says" if group.count == 1 else "say"
            if group.last is None:
                text = (
                    f"{least}{counted(group.count, 'log line')} of {about} without a time {verb} that {says}."
                )
            else:
                age = span_text(max(0.0, (result.now - group.last).total_seconds()))
                text = (
                    f"{least}{counted(group.count, 'log line')} of {about} in the last {window} "
                    f"{verb} that {says}, the last one {age} ago."
                )
            yield Finding(kind=kind, subject=about, text=text[0].upper() + text[1:], severity=severity)
        for line in result.suspicious[:SUSPICIOUS_FINDINGS]:
            place = "A line" if line.line is None else f"Line {line.line}"
            yield Finding(
                kind=FindingKind.SUSPICIOUS_TEXT,
                subject=shown_path(line.file),
                text=f"{place} of {shown_path(line.file)} {line.reason}.",
                severity=Severity.WARNING,
                told=f"A line of a log of {about} {line.reason}.",
            )

    def quotations(self, result: LogSearchResult) -> tuple[str, ...]:
        """Return the sample lines, without those that speak to their reader."""
        return tuple(sample.text for sample in result.samples if suspicion(sample.text) is None)

    def suspicious(self, result: LogSearchResult) -> tuple[str, ...]:
        """Return the lines that speak to their reader."""
        return tuple(line.text for line in result.suspicious)

    def describe(self, arguments: LogSearchArguments) -> str:
        """Say whose logs of which time."""
        whose = arguments.service or shown_path(arguments.path or "")
        what = f"what the logs of {whose} say about the last {span_text(arguments.since_seconds)}"
        return f"{what}, in lines with {visible(arguments.pattern)!r}" if arguments.pattern else what

    @staticmethod
    def _logs(spec: HostSpec, arguments: LogSearchArguments) -> tuple[str, tuple[Path, ...]]:
        if arguments.service is None:
            path = Path(arguments.path or "")
            owners = [service.name for service in spec.services if path in service.logs]
            return (owners[0] if len(owners) == 1 else str(path)), (readable_log(spec, path),)
        try:
            service = spec.service(arguments.service)
        except InventoryError as error:
            raise CollectError(str(error)) from error
        if not service.logs:
            raise CollectError(f"service {service.name!r} has no log files in the inventory")
        return service.name, tuple(readable_log(spec, log) for log in service.logs)


@dataclass(frozen=True, slots=True)
class WindowLine:
    """A line within the window; ``message`` was written by others."""

    message: str
    time: float | None


@dataclass(frozen=True, slots=True)
class Window:
    """What was read of the window.

    Attributes:
        subject: The service, or the path.
        now: When it was read (seconds since 1970).
        lines: The lines, the oldest of each file first.
        complete: Whether all files were read back to its start.
    """

    subject: str
    now: float
    lines: tuple[WindowLine, ...]
    complete: bool

    @staticmethod
    def moment(seconds: float) -> datetime:
        """Return a time of a line as such."""
        return _moment(seconds)


def lines_of(raw: Raw, arguments: LogSearchArguments) -> Window:
    """Return the lines of the window from what `LogSearch.collect` read; pure.

    Raises:
        CollectError: If not a single file could be read.
    """
    read = _SearchRaw.model_validate(raw)
    errors = [file.error for file in read.files if file.error]
    if len(errors) == len(read.files):
        raise CollectError("; ".join(errors) or "there is no log file")
    since = read.now - arguments.since_seconds
    lines = tuple(
        WindowLine(line.message, line.time)
        for file in reversed(read.files)
        for line in _window(file, since=since, now=read.now, offset=read.utc_offset)
    )
    return Window(read.subject, read.now, lines, not errors and all(file.complete for file in read.files))


def _window(file: _FileRaw, *, since: float, now: float, offset: float) -> Iterator[_Seen]:
    """Yield the lines of a file that fall into the window, the oldest first."""
    written: float | None = None
    undated: list[_Seen] = []
    for number, text in enumerate(file.lines):
        line = parse_line(text, now=now, utc_offset=offset)
        # A line without a time continues the one before it: a traceback, a statement over several lines.
        continues = line.time is None and written is not None
        written = line.time if line.time is not None else written
        position = None if file.first_line is None else file.first_line + number
        seen = _Seen(file.path, position, text, line.message, written, line.severity, continues)
        if written is None:
            undated.append(seen)
        elif written >= since:
            yield seen
    if written is None and file.modified >= since:
        yield from undated[-UNDATED_LINES:]


def _trouble(line: _Seen, log_class: LogClass | None) -> LogClass | None:
    """Decide whether a line counts as trouble, and of which class."""
    if line.severity in (LineSeverity.DEBUG, LineSeverity.INFO):
        return None
    # The lines of a traceback are no errors of their own, but one of them may say what it is about.
    if line.severity in (None, LineSeverity.WARNING) or line.continues:
        return log_class
    return log_class or LogClass.OTHER


def _suspicious(lines: list[_Seen]) -> tuple[list[SuspiciousLine], int]:
    """Look at each different line, the newest first, as far as the budget goes."""
    found: list[SuspiciousLine] = []
    reasons: dict[str, Suspicion | None] = {}
    left = CHECKED_CHARACTERS
    unchecked = 0
    for line in reversed(lines):
        shape = _NUMBERS.sub("0", line.text)
        if shape not in reasons:
            if left <= 0:
                unchecked += 1
                continue
            left -= len(line.text)
            # The whole line too: what a JSON line says need not stand in its message.
            reasons[shape] = suspicion(line.message) or (
                suspicion(line.text) if line.text != line.message else None
            )
        reason = reasons[shape]
        if reason is not None:
            found.append(
                SuspiciousLine(
                    file=visible(line.file),
                    line=line.line,
                    reason=reason,
                    text=visible(line.text, SAMPLE_LENGTH),
                )
            )
    return found, unchecked


def _sample(group: list[_Seen], kinds: dict[str, LogClass | None]) -> LogSample:
    last = group[-1]
    return LogSample(
        file=visible(last.file),
        line=last.line,
        time=None if last.time is None else _moment(last.time),
        severity=last.severity,
        log_class=_trouble(last, kinds[last.shape]),
        count=len(group),
        text=visible(last.text, SAMPLE_LENGTH),
    )


def _count(group: _Group) -> ClassCount:
    if not group.times:
        return ClassCount(count=group.count, first=None, last=None)
    return ClassCount(count=group.count, first=_moment(min(group.times)), last=_moment(max(group.times)))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)
