"""Whether a service's configuration changed since it was healthy, and whether it can be parsed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.archive import MAX_CONFIG_BYTES, ConfigArchive
from watchkeeper.tools.configtext import as_bytes, as_text, format_of, parse_problem, redacted_diff
from watchkeeper.tools.durable import digest, read_stable
from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.schema import known
from watchkeeper.tools.text import counted, shown_path, span_text

MAX_FILES = 20
MAX_DIFF_CHARACTERS = 4000
RECENT_SECONDS = 3600.0
_UNREADABLE = "cannot be read"
FRESH_SECONDS = 15 * 60  # a change that young is the first thing that an engineer suspects


class ConfigChangesArguments(Arguments):
    """Which service."""

    service: Annotated[str, known("service", description="name of the service")]


class ConfigFile(BaseModel):
    """State of one configuration file.

    Attributes:
        path: Its path, from the inventory.
        digest: SHA-256 of its content; empty if it is missing.
        changed: When it was written last (UTC); None if it is missing.
        age: Seconds since then.
        parses: Whether it can be parsed; None if its format is not one that is judged.
        problem: Why not, e.g. ``cannot be parsed as JSON: line 7``; or that it is missing or unreadable.
        last_good: When its last good version was recorded (UTC); None if there is none.
        differs: Whether it differs from that version; None if there is none.
        lines: Number of lines that differ.
        diff: From the present content to the last good version; for people, secrets redacted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    digest: str = ""
    changed: datetime | None = None
    age: float | None = None
    parses: bool | None = None
    problem: str = ""
    last_good: datetime | None = None
    differs: bool | None = None
    lines: int = 0
    diff: str = ""


class ConfigChangesResult(Result):
    """State of a service's configuration files."""

    files: tuple[ConfigFile, ...]


class ConfigChanges(Fact[ConfigChangesArguments, ConfigChangesResult]):
    """Which configuration files of a service changed since it was healthy, and which cannot be parsed."""

    name: ClassVar[str] = "config.changes"
    summary: ClassVar[str] = "whether a service's configuration changed or is broken"
    provenance: ClassVar[Provenance] = Provenance.UNTRUSTED
    # Paths are the inventory's, and of what others wrote no more than the number of a line is told.
    plain_findings: ClassVar[bool] = True
    kinds = frozenset({FindingKind.CONFIG_INVALID, FindingKind.CONFIG_CHANGED, FindingKind.CUSTOM})
    arguments_type = ConfigChangesArguments
    result_type = ConfigChangesResult

    def collect(self, target: Target, arguments: ConfigChangesArguments) -> Raw:
        """Read the files and their last good versions.

        Raises:
            CollectError: If the host is another machine, or the archive is damaged.
            InventoryError: If the host has no such service.
        """
        service = target.spec.service(arguments.service)
        if not target.host.is_local:
            raise CollectError(f"files of host {target.host.name!r} can be read from that host alone")
        archive = ConfigArchive.of(target)
        return {
            "now": time.time(),
            "files": [_look_at(path, archive) for path in service.config[:MAX_FILES]],
            "left_out": max(0, len(service.config) - MAX_FILES),
        }

    def interpret(self, raw: Raw, arguments: ConfigChangesArguments) -> ConfigChangesResult:  # noqa: ARG002 (the paths were read already)
        """Compare each file with its last good version."""
        listed, now = raw["files"], float(str(raw["now"]))
        files, cut = [], bool(raw["left_out"])
        for entry in listed if isinstance(listed, list) else []:
            if isinstance(entry, dict):
                file, shortened = _judge(entry, now)
                files.append(file)
                cut = cut or shortened
        return ConfigChangesResult(files=tuple(files), cut=cut)

    def findings(self, result: ConfigChangesResult, arguments: ConfigChangesArguments) -> Iterable[Finding]:
        """Say which files changed and which are broken; from paths, ages and counts alone."""
        for file in result.files:
            subject = f"configuration file {shown_path(file.path)} of service {arguments.service}"
            ago = "" if file.age is None else f" {span_text(file.age)} ago"
            if file.problem:
                # What may not be read here may be well, and its service may read it.
                unseen = file.problem.startswith(_UNREADABLE)
                yield Finding(
                    kind=FindingKind.CUSTOM if unseen else FindingKind.CONFIG_INVALID,
                    subject=file.path,
                    text=f"{subject} {file.problem}",
                    severity=Severity.WARNING if unseen else Severity.CRITICAL,
                )
            if file.differs and file.digest:
                verb = "differs" if file.lines == 1 else "differ"
                yield Finding(
                    kind=FindingKind.CONFIG_CHANGED,
                    subject=file.path,
                    text=f"{subject} changed{ago}: {counted(file.lines, 'line')} "
                    f"{verb} from the last version under which it was healthy",
                    severity=Severity.CRITICAL if is_fresh(file.age) else Severity.WARNING,
                )
            elif file.differs is None and file.age is not None and file.age < RECENT_SECONDS:
                yield Finding(
                    kind=FindingKind.CONFIG_CHANGED,
                    subject=file.path,
                    text=f"{subject} was written{ago}, and no version under which it was healthy is known",
                    severity=Severity.WARNING,
                )

    def describe(self, arguments: ConfigChangesArguments) -> str:
        """Say what this call would tell."""
        return f"whether the configuration of service {arguments.service} changed or cannot be parsed"


def _look_at(path: Path, archive: ConfigArchive) -> Raw:
    seen: Raw = {"path": str(path), "problem": "", "content": None, "digest": "", "mtime": None, "good": None}
    version = archive.last_good(path)
    if version is not None:
        content = archive.content(version)
        seen["good"] = {
            "content": as_text(content),
            "digest": version.digest,
            "recorded_at": version.recorded_at.isoformat(),
        }
    try:
        read = read_stable(path, limit=MAX_CONFIG_BYTES)
    except OSError as error:
        seen["problem"] = f"{_UNREADABLE}: {error.strerror}"
        return seen
    if read is None:
        seen["problem"] = "is missing"
        return seen
    content, status = read
    return {**seen, "content": as_text(content), "digest": digest(content), "mtime": status.st_mtime}


def _judge(entry: Raw, now: float) -> tuple[ConfigFile, bool]:
    path, good = str(entry["path"]), entry["good"]
    recorded = None if not isinstance(good, dict) else datetime.fromisoformat(str(good["recorded_at"]))
    if not entry["digest"]:
        return (
            ConfigFile(
                path=path,
                problem=str(entry["problem"]),
                last_good=recorded,
                differs=None if recorded is None else True,
            ),
            False,
        )
    content, mtime = as_bytes(str(entry["content"])), float(str(entry["mtime"]))
    problem = parse_problem(PurePath(path), content)
    lines, diff, cut = 0, "", False
    if isinstance(good, dict) and good["digest"] != entry["digest"]:
        found = redacted_diff(content, as_bytes(str(good["content"])), path=shown_path(path))
        lines, diff, cut = found.lines, found.text[:MAX_DIFF_CHARACTERS], found.cut
        cut = cut or len(found.text) > MAX_DIFF_CHARACTERS
    file = ConfigFile(
        path=path,
        digest=str(entry["digest"]),
        changed=datetime.fromtimestamp(mtime, UTC),
        age=max(0.0, now - mtime),
        parses=None if format_of(PurePath(path)) is None else not problem,
        problem=problem,
        last_good=recorded,
        differs=None if not isinstance(good, dict) else good["digest"] != entry["digest"],
        lines=lines,
        diff=diff,
    )
    return file, cut


def is_fresh(age: float | None) -> bool:
    """Whether a change is so young that it is suspect for that alone."""
    return age is not None and age < FRESH_SECONDS
