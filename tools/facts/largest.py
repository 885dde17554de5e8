"""What fills a file system: its largest files and folders, and files deleted but still open."""

from __future__ import annotations

import heapq
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw, Result
from watchkeeper.tools.facts.disk import UsageRaw, read_usage
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.local import reason, require_local
from watchkeeper.tools.mounts import holders
from watchkeeper.tools.schema import folders_of, known
from watchkeeper.tools.suspicion import suspicion
from watchkeeper.tools.text import counted, shown_name, shown_path, size_text

WALK_SECONDS = 5.0  # then the walk is given up, and the result says so
WALK_ENTRIES = 300_000  # likewise
GROWTH_SECONDS = 0.5  # between the two looks at each large file
LARGE_SHARE = 25.0  # per cent of the used bytes of its file system that make a single file large
LARGE_BYTES = 1024**3  # that do so whatever the share
MIN_LARGE_BYTES = 1024**2  # below, a file is no finding even on an almost empty file system
DELETED_BYTES = 64 * 1024**2  # held by deleted files, from which on it is worth saying
WRITERS = 5  # processes named for a file

_LOG_NAME = re.compile(
    r"(?:\.(?:log|logs|out|err|trace|journal)|(?:^|[._-])(?:log|logs|trace|access|error|messages|syslog|debug))"
    r"(?:[.-](?:\d+|\d{4}-?\d\d-?\d\d.*))?(?:\.(?:gz|xz|zst|bz2))?$",
    re.IGNORECASE,
)
_LOG_FOLDERS = frozenset({"log", "logs", "journal"})


class DiskLargestArguments(Arguments):
    """Where to look, and how many of each to name."""

    path: Annotated[str, known("data", description="the folder below which to look")]
    limit: int = Field(default=10, ge=1, le=50, description="how many files")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Writer(_Part):
    """A process that has a file open for writing; it chooses its name itself."""

    pid: int
    name: str


class _FileRaw(_Part):
    path: str
    exact: bool
    size: int
    allocated: int
    modified: float
    grown: int
    writers: tuple[Writer, ...] = ()
    readers: int = 0


class _FolderRaw(_Part):
    path: str
    allocated: int
    files: int


class _DeletedRaw(_Part):
    pid: int
    name: str
    allocated: int


class _LargestRaw(_Part):
    usage: UsageRaw
    files: tuple[_FileRaw, ...]
    folders: tuple[_FolderRaw, ...]
    deleted: tuple[_DeletedRaw, ...]
    entries: int
    unreadable: int
    finished: bool
    growth_seconds: float
    logs: tuple[str, ...]


class LargeFile(_Part):
    """One file.

    Attributes:
        path: As it is on disk; others may have chosen it.
        exact: Whether ``path`` can be used to open it: a name that is not UTF-8 is shown escaped.
        size_bytes: Of what it holds.
        allocated_bytes: Of what it takes on disk.
        share_percent: Of the used bytes of its file system.
        modified: When it was last written to.
        growth_bytes_per_second: Over a short sample.
        writers: Processes that have it open for writing.
        readers: How many others have it open.
        is_log: Whether it is a log of the inventory or is named like one.
    """

    path: str
    exact: bool
    size_bytes: int
    allocated_bytes: int
    share_percent: float
    modified: datetime
    growth_bytes_per_second: float
    writers: tuple[Writer, ...]
    readers: int
    is_log: bool


class LargeFolder(_Part):
    """A folder right below the one asked for, with all that is below it; ``.`` are files in the latter."""

    path: str
    allocated_bytes: int
    files: int


class DeletedFiles(_Part):
    """What a process keeps open of files that were deleted: space that is free once it closes them."""

    pid: int
    name: str
    allocated_bytes: int


class DiskLargestResult(Result):
    """What fills a file system, as far as it is below a folder.

    Attributes:
        path: The folder asked for.
        mount: Where its file system is mounted.
        used_bytes: Of the file system.
        files: The largest files, by what they take on disk.
        folders: The largest folders.
        deleted: Processes that keep deleted files open.
        entries: Files and folders looked at.
        unreadable: Folders that could not be looked into.
    """

    path: str
    mount: str
    used_bytes: int
    files: tuple[LargeFile, ...]
    folders: tuple[LargeFolder, ...]
    deleted: tuple[DeletedFiles, ...]
    entries: int
    unreadable: int


class DiskLargest(Fact[DiskLargestArguments, DiskLargestResult]):
    """Walk through a folder, on its own file system only, and find what takes most of it."""

    name = "disk.largest"
    summary = "which files below a folder are the largest"
    provenance = Provenance.UNTRUSTED  # whoever may write there chooses the names
    kinds = frozenset({FindingKind.LARGE_FILE, FindingKind.SUSPICIOUS_TEXT, FindingKind.CUSTOM})
    arguments_type = DiskLargestArguments
    result_type = DiskLargestResult

    def candidates(self, spec: HostSpec) -> Iterable[dict[str, Any]]:
        """Look below each data folder and each folder of logs."""
        return [{"path": folder} for folder in folders_of(spec)]

    def collect(self, target: Target, arguments: DiskLargestArguments) -> Raw:
        """Walk, then look once more at the largest files to see them grow.

        Raises:
            CollectError: If the folder is missing or cannot be read.
        """
        require_local(target, self.name)
        top = Path(os.path.realpath(arguments.path))
        usage = read_usage(top)
        walk = _Walk(top, arguments.limit)
        walk.run(deadline=time.monotonic() + WALK_SECONDS)
        files = walk.largest()
        started = time.monotonic()
        time.sleep(GROWTH_SECONDS)
        grown = {file.inode: _size(file.path) - file.size for file in files}
        seconds = time.monotonic() - started
        open_files = holders(walk.device, {file.inode for file in files})
        deleted: dict[tuple[int, str], int] = {}
        counted_inodes: set[int] = set()
        for holder in open_files:
            # Several processes may hold the same file: it is free once, so the first one stands for all.
            if holder.deleted and holder.inode not in counted_inodes:
                counted_inodes.add(holder.inode)
                key = (holder.pid, holder.name)
                deleted[key] = deleted.get(key, 0) + holder.allocated
        raw = _LargestRaw(
            usage=usage,
            files=tuple(
                _FileRaw(
                    path=_utf8(file.path),
                    exact=_utf8(file.path) == file.path,
                    size=file.size,
                    allocated=file.allocated,
                    modified=file.modified,
                    grown=max(0, grown[file.inode]),
                    writers=tuple(
                        Writer(pid=h.pid, name=h.name)
                        for h in open_files
                        if h.inode == file.inode and h.writes and not h.deleted
                    )[:WRITERS],
                    readers=sum(h.inode == file.inode and not h.writes for h in open_files),
                )
                for file in files
            ),
            folders=tuple(
                _FolderRaw(path=_utf8(name), allocated=total.allocated, files=total.files)
                for name, total in walk.folders()
            ),
            deleted=tuple(
                _DeletedRaw(pid=pid, name=name, allocated=size) for (pid, name), size in deleted.items()
            ),
            entries=walk.entries,
            unreadable=walk.unreadable,
            finished=walk.finished,
            growth_seconds=round(seconds, 3),
            logs=tuple(os.path.realpath(log) for service in target.spec.services for log in service.logs),
        )
        return raw.model_dump(mode="json")

    def interpret(self, raw: Raw, arguments: DiskLargestArguments) -> DiskLargestResult:
        """Sort by what is taken on disk."""
        read = _LargestRaw.model_validate(raw)
        used = read.usage.size - read.usage.free
        logs = frozenset(read.logs)
        files = sorted(read.files, key=lambda item: (-item.allocated, item.path))
        folders = sorted(read.folders, key=lambda item: (-item.allocated, item.path))
        deleted = sorted(read.deleted, key=lambda item: (-item.allocated, item.pid))
        return DiskLargestResult(
            path=arguments.path,
            mount=read.usage.mount,
            used_bytes=used,
            files=tuple(
                LargeFile(
                    path=item.path,
                    exact=item.exact,
                    size_bytes=item.size,
                    allocated_bytes=item.allocated,
                    share_percent=round(100 * item.allocated / used, 1) if used else 0.0,
                    modified=datetime.fromtimestamp(round(item.modified, 3), UTC),
                    growth_bytes_per_second=round(item.grown / read.growth_seconds, 1),
                    writers=item.writers,
                    readers=item.readers,
                    is_log=item.path in logs or _is_named_like_a_log(item.path),
                )
                for item in files[: arguments.limit]
            ),
            folders=tuple(
                LargeFolder(path=item.path, allocated_bytes=item.allocated, files=item.files)
                for item in folders[: arguments.limit]
            ),
            deleted=tuple(
                DeletedFiles(pid=item.pid, name=item.name, allocated_bytes=item.allocated)
                for item in deleted[: arguments.limit]
            ),
            entries=read.entries,
            unreadable=read.unreadable,
            cut=not read.finished or read.unreadable > 0,
        )

    def findings(self, result: DiskLargestResult, arguments: DiskLargestArguments) -> Iterator[Finding]:
        """Name the files that matter, and processes that keep deleted ones."""
        for rank, file in enumerate(result.files, start=1):
            if not is_large(file):
                continue
            why = suspicion(_as_words(file.path))
            name = (
                shown_path(file.path) if why is None else f"number {rank} below {shown_path(arguments.path)}"
            )
            kind = "log file" if file.is_log else "file"
            takes = (
                f"takes {size_text(file.allocated_bytes)}, "
                f"{file.share_percent:.0f} % of what is used on {shown_path(result.mount)}"
            )
            text, told = f"The {kind} {name} {takes}", f"The {kind} {{0}} {takes}"
            if file.writers:
                first = file.writers[0]
                text += f"; process {first.pid} (named {shown_name(first.name)}) writes to it"
                told += f"; process {first.pid} writes to it"
            if file.growth_bytes_per_second > 0:
                grows = f"; it grows by {size_text(file.growth_bytes_per_second)} per second"
                text, told = text + grows, told + grows
            yield Finding(
                kind=FindingKind.LARGE_FILE,
                subject=name,
                text=f"{text}.",
                severity=Severity.WARNING if file.share_percent >= LARGE_SHARE else Severity.NORMAL,
                told=f"{told}.",
                names=(file.path,),
            )
            if why is not None:
                yield Finding(
                    kind=FindingKind.SUSPICIOUS_TEXT,
                    subject=name,
                    text=f"The name of the file {name} {why}.",
                    severity=Severity.WARNING,
                    told=f"The name of the file {{0}} {why}.",
                    names=(file.path,),
                )
        for item in result.deleted:
            if item.allocated_bytes >= DELETED_BYTES:
                yield Finding(
                    kind=FindingKind.CUSTOM,
                    subject=str(item.pid),
                    text=(
                        f"Process {item.pid} (named {shown_name(item.name)}) keeps deleted files open "
                        f"that take {size_text(item.allocated_bytes)} on {shown_path(result.mount)}."
                    ),
                    severity=Severity.WARNING,
                    told=(
                        f"Process {item.pid} keeps deleted files open that take "
                        f"{size_text(item.allocated_bytes)} on {shown_path(result.mount)}."
                    ),
                )
        if result.unreadable:
            text = (
                f"{counted(result.unreadable, 'folder')} below {shown_path(arguments.path)} "
                "could not be looked into."
            )
            yield Finding(kind=FindingKind.CUSTOM, subject=shown_path(arguments.path), text=text, told=text)

    def offers(self, result: DiskLargestResult) -> dict[str, list[str]]:
        """Offer the log files that were found to actions that take logs."""
        return {"log": [file.path for file in result.files if file.is_log and file.exact]}

    def describe(self, arguments: DiskLargestArguments) -> str:
        """Say below which folder."""
        return f"which files below {shown_path(arguments.path)} are the largest"


def is_large(file: LargeFile) -> bool:
    """Whether a single file matters for how full its file system is."""
    if file.allocated_bytes < MIN_LARGE_BYTES:
        return False
    return file.share_percent >= LARGE_SHARE or file.allocated_bytes > LARGE_BYTES


@dataclass(frozen=True, slots=True, order=True)
class _Found:
    allocated: int
    inode: int
    path: str = field(compare=False)
    size: int = field(compare=False)
    modified: float = field(compare=False)


@dataclass(slots=True)
class _Total:
    allocated: int = 0
    files: int = 0


class _Walk:
    """A walk through one file system, near folders first, bounded in time and count."""

    def __init__(self, top: Path, limit: int) -> None:
        try:
            status = top.stat()
            is_folder = stat.S_ISDIR(status.st_mode)
            if is_folder:
                with os.scandir(top):
                    pass
        except OSError as error:
            raise CollectError(f"folder {str(top)!r} cannot be read: {reason(error)}") from error
        if not is_folder:
            raise CollectError(f"{str(top)!r} is not a folder")
        self.top = top
        self.device = status.st_dev
        self.entries = self.unreadable = 0
        self.finished = False
        self._limit = limit
        self._heap: list[_Found] = []
        self._linked: set[int] = set()
        self._totals: dict[str, _Total] = {}

    def run(self, *, deadline: float) -> None:
        """Walk until all is seen, or the bounds are reached."""
        waiting: list[tuple[str, str]] = [(str(self.top), ".")]
        position = 0
        while position < len(waiting):
            folder, branch = waiting[position]
            position += 1
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if self.entries >= WALK_ENTRIES or time.monotonic() > deadline:
                            return
                        self.entries += 1
                        if self._look_at(entry, branch):
                            waiting.append((entry.path, entry.path if branch == "." else branch))
            except OSError:
                self.unreadable += 1
        self.finished = True

    def _look_at(self, entry: os.DirEntry[str], branch: str) -> bool:
        """Count a file; whether it is a folder to be walked."""
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return False  # gone since
        if status.st_dev != self.device:
            return False
        if stat.S_ISDIR(status.st_mode):
            return True
        if not stat.S_ISREG(status.st_mode):
            return False
        if status.st_nlink > 1:
            if status.st_ino in self._linked:
                return False
            self._linked.add(status.st_ino)
        allocated = status.st_blocks * 512
        total = self._totals.setdefault(branch, _Total())
        total.allocated += allocated
        total.files += 1
        if len(self._heap) < self._limit or allocated > self._heap[0].allocated:
            found = _Found(allocated, status.st_ino, entry.path, status.st_size, status.st_mtime)
            if len(self._heap) < self._limit:
                heapq.heappush(self._heap, found)
            else:
                heapq.heapreplace(self._heap, found)
        return False

    def largest(self) -> list[_Found]:
        """Return the largest files."""
        return sorted(self._heap, reverse=True)

    def folders(self) -> list[tuple[str, _Total]]:
        """Return the largest folders right below the top."""
        return heapq.nlargest(self._limit, self._totals.items(), key=lambda item: item[1].allocated)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _is_named_like_a_log(path: str) -> bool:
    file = Path(path)
    return bool(_LOG_NAME.search(file.name)) or file.parent.name in _LOG_FOLDERS


def _as_words(path: str) -> str:
    """Write a path as a reader would read it: its parts and words apart."""
    return re.sub(r"[_+.-]+", " ", path.replace("/", ". "))


def _utf8(text: str) -> str:
    """Make a name that is not UTF-8 fit for JSON."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
