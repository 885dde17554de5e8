"""What a trained predictor says of the lines of a log: classes and counts, never a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from watchkeeper.tools.errors import ArtefactError
from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.facts.log import LogSearch, LogSearchArguments, lines_of
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.schema import known
from watchkeeper.tools.text import counted, shown_path, span_text

if TYPE_CHECKING:
    from watchkeeper.tools.predictors.logs import LogPredictor

LABEL = re.compile(r"[A-Za-z0-9._-]{1,40}")
"""What a label may look like, so that none can read as a sentence."""


class LogsClassifyArguments(Arguments):
    """Of a service all logs, or one log file; exactly one of the two is given."""

    service: Annotated[str | None, known("service")] = None
    path: Annotated[str | None, known("log")] = None
    since_seconds: int = Field(default=600, ge=1, le=7 * 86400, description="how far back, in seconds")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.service is None) == (self.path is None):
            raise ValueError("give either a service or a path")
        return self

    @property
    def search(self) -> LogSearchArguments:
        """The search that reads the same lines."""
        return LogSearchArguments(service=self.service, path=self.path, since_seconds=self.since_seconds)


class LabelCount(BaseModel):
    """How many lines were given a label, and when the first and the last were written, if they say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    first: datetime | None
    last: datetime | None


class LogsClassifyResult(Result):
    """What the predictor says of the lines of the window.

    Attributes:
        subject: The service, or the path.
        now: When they were read.
        window_seconds: How far back.
        lines: Lines within the window.
        by_label: How many were given each label.
        unsure: Lines of which it was not sure enough; they are counted under no label.
        unknown: Lines unlike all that it learned from.
    """

    subject: str
    now: datetime
    window_seconds: int
    lines: int
    by_label: dict[str, LabelCount]
    unsure: int
    unknown: int


class LogsClassify(Fact[LogsClassifyArguments, LogsClassifyResult]):
    """Classify log lines by a predictor that was trained on such lines.

    Args:
        labels: What it may answer.
        normal: The label of lines without trouble, if there is one.
        load: Loads the predictor, once it is needed.
        sure: Least probability of an answer that counts.

    Raises:
        ArtefactError: If a label could be read as a sentence.
    """

    name = "logs.classify"
    summary = "which known kinds of trouble the logs hold"
    provenance = Provenance.UNTRUSTED
    plain_findings = True
    kinds = frozenset({FindingKind.LOG_CLASSIFIED})
    arguments_type = LogsClassifyArguments
    result_type = LogsClassifyResult

    def __init__(
        self,
        labels: Iterable[str],
        normal: str | None,
        load: Callable[[], LogPredictor],
        *,
        sure: float = 0.6,
    ) -> None:
        for label in labels:
            if not LABEL.fullmatch(label):
                raise ArtefactError(
                    f"label {label!r:.80} may not be told to agents: train with labels of up to 40 letters, "
                    "digits, dots, dashes and underscores"
                )
        self._normal = normal
        self._load = load
        self._sure = sure

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """Make the fact of the predictor in a folder, which is loaded once it is asked.

        Raises:
            ArtefactError: If the folder holds no predictor of log lines that can read lines alone.
        """
        from watchkeeper.tools.predictors.artefact import read_manifest
        from watchkeeper.tools.predictors.logs import LogPredictor, describe

        manifest = read_manifest(folder)
        if manifest.kind != LogPredictor.kind:
            raise ArtefactError(
                f"{folder} holds a predictor of kind {manifest.kind!r}; {cls.name} needs one of kind "
                f"{LogPredictor.kind!r}, as the trainer log-classifier makes them"
            )
        description = describe(folder)
        if description.fields:
            raise ArtefactError(
                f"{folder} learned from the fields {', '.join(description.fields)}, which lines of logs do "
                "not have: train it without fields"
            )
        return cls(description.classes, description.normal, lambda: LogPredictor.load(folder))

    @cached_property
    def _predictor(self) -> LogPredictor:
        return self._load()

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Classify the logs of each service that has some."""
        return [{"service": service.name} for service in spec.services if service.logs]

    def collect(self, target: Target, arguments: LogsClassifyArguments) -> Raw:
        """Read the ends of the log files.

        Raises:
            CollectError: If there is no log, none may be read, or none can be read.
        """
        return LogSearch().collect(target, arguments.search)

    def interpret(self, raw: Raw, arguments: LogsClassifyArguments) -> LogsClassifyResult:
        """Classify and count the lines of the window.

        Raises:
            CollectError: If not a single file could be read.
        """
        read = lines_of(raw, arguments.search)
        column = self._predictor.description.column
        answers = self._predictor.predict([{column: line.message} for line in read.lines])
        times: dict[str, list[float]] = {}
        counts: dict[str, int] = {}
        unsure = unknown = 0
        for line, answer in zip(read.lines, answers, strict=True):
            unknown += answer["template"] is None
            if float(str(answer["probability"])) < self._sure:
                unsure += 1
                continue
            label = str(answer["label"])
            counts[label] = counts.get(label, 0) + 1
            times.setdefault(label, [])
            if line.time is not None:
                times[label].append(line.time)
        return LogsClassifyResult(
            subject=read.subject,
            now=read.moment(read.now),
            window_seconds=arguments.since_seconds,
            lines=len(read.lines),
            by_label={
                label: LabelCount(
                    count=counts[label],
                    first=read.moment(min(times[label])) if times[label] else None,
                    last=read.moment(max(times[label])) if times[label] else None,
                )
                for label in sorted(counts)
            },
            unsure=unsure,
            unknown=unknown,
            cut=not read.complete,
        )

    def findings(self, result: LogsClassifyResult, arguments: LogsClassifyArguments) -> Iterator[Finding]:
        """Say how many lines are of which class but the normal one, and how old the last one is."""
        about = result.subject if arguments.service else shown_path(result.subject)
        for label, group in result.by_label.items():
            if label == self._normal:
                continue
            least = "At least " if result.cut else ""
            verb = "is" if group.count == 1 else "are"
            age = ""
            if group.last is not None:
                seconds = max(0.0, (result.now - group.last).total_seconds())
                age = f", the last one {span_text(seconds)} ago"
            yield Finding(
                kind=FindingKind.LOG_CLASSIFIED,
                subject=about,
                text=f"{least}{counted(group.count, 'log line')} of {about} in the last "
                f"{span_text(result.window_seconds)} {verb} of the class {label}{age}.",
                severity=Severity.NORMAL if self._normal is None else Severity.WARNING,
            )

    def describe(self, arguments: LogsClassifyArguments) -> str:
        """Say whose logs of which time."""
        whose = arguments.service or shown_path(arguments.path or "")
        return (
            f"which known kinds of trouble the logs of {whose} hold in the last "
            f"{span_text(arguments.since_seconds)}"
        )
