"""What a trained predictor says of the lines of a log: classes, counts, words it learned; never a line."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from watchkeeper.tools.errors import ArtefactError, CollectError, ToolError
from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.facts.log import LogSearch, LogSearchArguments, Window, WindowLine, lines_of
from watchkeeper.tools.facts.measured import AnsweredBy
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec, Registered
from watchkeeper.tools.redaction import redact_text
from watchkeeper.tools.schema import known
from watchkeeper.tools.text import counted, shown_path, span_text

if TYPE_CHECKING:
    from watchkeeper.tools.facts.answering import Answer, Opened
    from watchkeeper.tools.predictors.logs import LogDescription, LogPredictor

LABEL = re.compile(r"[A-Za-z0-9._-]{1,40}")
"""What a label may look like, so that none can read as a sentence."""

RECORDED = 1000  # newest lines of a reading whose answers are kept
EXPLAINING_SECONDS = 1.0
WORDS = 3  # of a label that are told
LEAST_WORTH = 0.1  # of the strongest word: weaker ones are not told


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
    """How many lines were given a label, and when the first and the last were written, if they say.

    Attributes:
        count: How many.
        first: When the first was written.
        last: When the last was.
        words: Words for which the surest line was given it: none that the predictor did not learn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    first: datetime | None
    last: datetime | None
    words: tuple[str, ...] = ()


class LogsClassifyResult(Result):
    """What the predictor says of the lines of the window.

    Attributes:
        subject: The service, or the path.
        now: When they were read.
        window_seconds: How far back.
        lines: Lines within the window.
        by_label: How many were given each label.
        normal: The label of lines without trouble; None where there is none.
        unsure: Lines of which it was not sure enough; they are counted under no label.
        unknown: Lines unlike all that it learned from.
        by: The version that classified; None of a predictor in a folder.
    """

    subject: str
    now: datetime
    window_seconds: int
    lines: int
    by_label: dict[str, LabelCount]
    normal: str | None
    unsure: int
    unknown: int
    by: AnsweredBy | None


class LogsClassify(Fact[LogsClassifyArguments, LogsClassifyResult]):
    """Classify log lines by a predictor that was trained on such lines.

    Args:
        open_: Opens the predictor, given the home; asked at each reading.
        sure: Least probability of an answer that counts.
    """

    name = "logs.classify"
    summary = "which known kinds of trouble the logs hold"
    provenance = Provenance.UNTRUSTED
    plain_findings = True
    kinds = frozenset({FindingKind.LOG_CLASSIFIED})
    arguments_type = LogsClassifyArguments
    result_type = LogsClassifyResult

    def __init__(self, open_: Callable[[Path], Opened[LogPredictor]], *, sure: float = 0.6) -> None:
        self._open = open_
        self._sure = sure

    @classmethod
    def of(cls, place: Path | Registered, *, sure: float = 0.6) -> Self:
        """Make the fact of a predictor: that of a folder is loaded once, one of the registry at each reading.

        Raises:
            ArtefactError: If a folder holds no predictor of log lines that agents may be told of.
        """
        if isinstance(place, Path):
            _check_folder(place)
            return cls(lru_cache(maxsize=1)(partial(_opened, place)), sure=sure)
        return cls(partial(_opened, place), sure=sure)

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Classify the logs of each service that has some."""
        return [{"service": service.name} for service in spec.services if service.logs]

    def collect(self, target: Target, arguments: LogsClassifyArguments) -> Raw:
        """Read the ends of the log files, and classify and count the lines of the window.

        Raises:
            CollectError: If no log can or may be read, or the predictor cannot be used.
        """
        read = lines_of(LogSearch().collect(target, arguments.search), arguments.search)
        try:
            asked = self._open(target.home)
            column = asked.predictor.description.column
            answers = asked.predictor.predict([{column: line.message} for line in read.lines])
        except ToolError as error:
            raise CollectError(str(error)) from error
        asked.record(_answers(asked, read, answers))
        given: dict[str, list[tuple[float, WindowLine]]] = {}
        for line, answer in zip(read.lines, answers, strict=True):
            if (probability := float(str(answer["probability"]))) >= self._sure:
                given.setdefault(str(answer["label"]), []).append((probability, line))
        normal = asked.predictor.description.normal
        words = _words({label: lines for label, lines in given.items() if label != normal}, asked.predictor)
        return LogsClassifyResult(
            subject=read.subject,
            now=read.moment(read.now),
            window_seconds=arguments.since_seconds,
            lines=len(read.lines),
            by_label={
                label: _count([line for _, line in given[label]], words.get(label, ()))
                for label in sorted(given)
            },
            normal=normal,
            unsure=len(read.lines) - sum(len(lines) for lines in given.values()),
            unknown=sum(answer["template"] is None for answer in answers),
            by=asked.by,
            cut=not read.complete,
        ).model_dump(mode="json")

    def interpret(self, raw: Raw, arguments: LogsClassifyArguments) -> LogsClassifyResult:  # noqa: ARG002
        """Take the counts."""
        return LogsClassifyResult.model_validate(raw)

    def findings(self, result: LogsClassifyResult, arguments: LogsClassifyArguments) -> Iterator[Finding]:
        """Say how many lines are of which class but the normal one, and how old the last one is."""
        about = result.subject if arguments.service else shown_path(result.subject)
        for label, group in result.by_label.items():
            if label == result.normal:
                continue
            least = "At least " if result.cut else ""
            verb = "is" if group.count == 1 else "are"
            age = ""
            if group.last is not None:
                seconds = max(0.0, (result.now - group.last).total_seconds())
                age = f", the last one {span_text(seconds)} ago"
            words = f"by the {'word' if len(group.words) == 1 else 'words'} {', '.join(group.words)}"
            said = "; ".join([words] * bool(group.words) + [str(result.by)] * (result.by is not None))
            why = f" ({said})" if said else ""
            yield Finding(
                kind=FindingKind.LOG_CLASSIFIED,
                subject=about,
                text=f"{least}{counted(group.count, 'log line')} of {about} in the last "
                f"{span_text(result.window_seconds)} {verb} of the class {label}{age}{why}.",
                severity=Severity.NORMAL if result.normal is None else Severity.WARNING,
            )

    def describe(self, arguments: LogsClassifyArguments) -> str:
        """Say whose logs of which time."""
        whose = arguments.service or shown_path(arguments.path or "")
        return (
            f"which known kinds of trouble the logs of {whose} hold in the last "
            f"{span_text(arguments.since_seconds)}"
        )


def _opened(place: Path | Registered, home: Path) -> Opened[LogPredictor]:
    """Open a predictor of log lines that agents may be told of.

    Raises:
        ToolError: If there is none.
    """
    from watchkeeper.tools.facts.answering import opened
    from watchkeeper.tools.predictors.logs import LogPredictor

    asked = opened(place, LogPredictor, home)
    _check(asked.predictor.description, str(asked.by or place))
    return asked


def _check_folder(folder: Path) -> None:
    from watchkeeper.tools.predictors.artefact import read_manifest
    from watchkeeper.tools.predictors.logs import LogPredictor, describe

    manifest = read_manifest(folder)
    if manifest.kind != LogPredictor.kind:
        raise ArtefactError(
            f"{folder} holds a predictor of kind {manifest.kind!r}; {LogsClassify.name} needs one of kind "
            f"{LogPredictor.kind!r}, as the trainer log-classifier makes them"
        )
    _check(describe(folder), str(folder))


def _check(description: LogDescription, what: str) -> None:
    for label in description.classes:
        if not LABEL.fullmatch(label):
            raise ArtefactError(
                f"label {label!r:.80} may not be told to agents: train with labels of up to 40 letters, "
                "digits, dots, dashes and underscores"
            )
    if description.fields:
        raise ArtefactError(
            f"{what} learned from the fields {', '.join(description.fields)}, which lines of logs do "
            "not have: train it without fields"
        )


def _answers(
    asked: Opened[LogPredictor], read: Window, answers: list[dict[str, JsonValue]]
) -> Iterator[Answer]:
    """Yield what was said of the newest lines; a line that is read again is the same, and kept once."""
    from watchkeeper.tools.facts.answering import Answer
    from watchkeeper.tools.predictors.templates import LENGTH_LIMIT

    column, seen = asked.predictor.description.column, Counter[tuple[float | None, str]]()
    for line, said in list(zip(read.lines, answers, strict=True))[-RECORDED:]:
        seen[line.time, line.message] += 1
        of = (read.subject, line.time, line.message, seen[line.time, line.message])
        yield Answer(of, {column: redact_text(line.message)[:LENGTH_LIMIT]}, said)


def _count(lines: list[WindowLine], words: tuple[str, ...]) -> LabelCount:
    times = [line.time for line in lines if line.time is not None]
    first, last = (Window.moment(pick(times)) if times else None for pick in (min, max))
    return LabelCount(count=len(lines), first=first, last=last, words=words)


def _words(
    given: dict[str, list[tuple[float, WindowLine]]], predictor: LogPredictor
) -> dict[str, tuple[str, ...]]:
    """Explain the surest line of each label, the most frequent labels first, as long as there is time."""
    from watchkeeper.tools.predictors.explain import explain_text
    from watchkeeper.tools.predictors.templates import LENGTH_LIMIT

    until, column = time.monotonic() + EXPLAINING_SECONDS, predictor.description.column
    found: dict[str, tuple[str, ...]] = {}
    for label, lines in sorted(given.items(), key=lambda item: -len(item[1])):
        if time.monotonic() > until:
            break
        _, line = max(lines, key=lambda pair: pair[0])
        row = {column: line.message[:LENGTH_LIMIT]}  # no more is read of a line
        pieces = explain_text(predictor, row, column=column, label=label).pieces
        least = LEAST_WORTH * max((piece.effect for piece in pieces), default=0.0)
        words = [p.text for p in pieces if p.effect > least and p.text in predictor.words]
        found[label] = tuple(dict.fromkeys(words))[:WORDS]
    return found
