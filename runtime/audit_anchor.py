"""Anchors: checkpoints of the audit log kept in a folder of another account, and compared with the log.

The account that runs agents can read the key that signs, so with the key and the files it could write a
whole new log. What was anchored before in a folder that it cannot write can then not be changed unnoticed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.audit_check import read_tombstones
from watchkeeper.runtime.audit_keys import PUBLIC, fingerprint, is_signed, load_public
from watchkeeper.runtime.audit_records import GENESIS, RESTORED, AuditEntry, AuditProblem, Checkpoint
from watchkeeper.runtime.errors import AuditError
from watchkeeper.tools.durable import write_durably

ANCHORS = "anchors.jsonl"
_FORGED = "is not signed by the anchored key"
_ALL_GONE = "nothing that was anchored can be compared"


class Anchored(BaseModel):
    """What an anchor holds now.

    Attributes:
        count: Entries of the log up to the newest anchored checkpoint.
        checkpoints: How many checkpoints are anchored.
        key: SHA-256 of the key that signed them.
        fresh: Whether this call added one.
        begun: Whether the folder held none before, so that the log was compared with nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    checkpoints: int
    key: str
    fresh: bool
    begun: bool


def anchor(log: AuditLog, folder: Path) -> Anchored:
    """Add the newest checkpoint of a sound log to the anchors of a folder.

    Args:
        log: The log.
        folder: Made if it is not there. It should belong to an account that agents do not run as.

    Raises:
        AuditError: If the log is not sound or not the one that was anchored before, is empty, or the folder
            cannot be written.
    """
    report = log.verify()
    problems = (*report.problems, *check_anchors(log, folder))
    if problems:
        first = problems[0]
        way_on = (
            restored_since(log, folder, problems)
            or _pruned_since(log, folder, problems)
            or "see `watchkeeper audit verify --anchor`"
        )
        raise AuditError(
            f"audit log {str(log.path)!r} is not anchored: {first.file} line {first.line}: {first.what}; "
            f"{way_on}"
        )
    signed = _checkpoints(log.checkpoints_path)
    if not signed:
        raise AuditError(f"audit log {str(log.path)!r} has no entry yet: there is nothing to anchor")
    newest = max(signed, key=lambda checkpoint: checkpoint.count)
    kept = _checkpoints(folder / ANCHORS)
    fresh = not kept or newest.count > kept[-1].count
    public = load_public(log.keys)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / PUBLIC).exists():
            write_durably(folder / PUBLIC, (log.keys / PUBLIC).read_bytes())
            (folder / PUBLIC).chmod(0o644)
        if fresh:
            _append(folder / ANCHORS, newest.line() + b"\n")
    except OSError as error:
        raise AuditError(f"anchor folder {str(folder)!r} cannot be written: {error.strerror}") from error
    return Anchored(
        count=newest.count,
        checkpoints=len(kept) + fresh,
        key=fingerprint(public),
        fresh=fresh,
        begun=not kept,
    )


def count_anchors(folder: Path) -> int:
    """Count the anchors of a folder.

    Raises:
        AuditError: If it holds none, or they cannot be read.
    """
    kept = _checkpoints(folder / ANCHORS)
    if not kept:
        state = "holds none" if folder.is_dir() else "is not there"
        raise AuditError(
            f"no anchors in {str(folder)!r}: the folder {state}, and the log was compared with nothing; name "
            "the folder that `watchkeeper audit anchor` was given, or begin one with it"
        )
    return len(kept)


def check_anchors(log: AuditLog, folder: Path) -> tuple[AuditProblem, ...]:
    """Compare the log and its key with what was anchored; nothing where nothing was.

    Raises:
        AuditError: If a file cannot be read or is not what it should be.
    """
    kept = _checkpoints(folder / ANCHORS)
    if not kept:
        return ()
    public = load_public(folder)
    problems: list[AuditProblem] = []
    if fingerprint(load_public(log.keys)) != fingerprint(public):
        problems.append(AuditProblem(file=PUBLIC, line=1, what="is not the key that was anchored"))
    hashes = _hashes(log.path)
    if all(checkpoint.count < min(hashes) for checkpoint in kept):
        what = f"the log begins after entry {min(hashes)}: {_ALL_GONE}"
        problems.append(AuditProblem(file=ANCHORS, line=len(kept), what=what))
    for line, checkpoint in enumerate(kept, start=1):
        content = Checkpoint.content(checkpoint.count, checkpoint.head, checkpoint.at)
        if not is_signed(public, checkpoint.signature, content):
            problems.append(AuditProblem(file=ANCHORS, line=line, what=_FORGED))
        elif checkpoint.count > max(hashes):
            what = f"{checkpoint.count} entries were anchored, the log ends with entry {max(hashes)}"
            problems.append(AuditProblem(file=ANCHORS, line=line, what=what))
        elif hashes.get(checkpoint.count, checkpoint.head) != checkpoint.head:
            what = f"entry {checkpoint.count} of the log is not the one that was anchored"
            problems.append(AuditProblem(file=ANCHORS, line=line, what=what))
    return tuple(problems)


def restored_since(log: AuditLog, folder: Path, problems: tuple[AuditProblem, ...]) -> str:
    """Say that a restore of an older backup may be why, and how to go on; empty where it cannot be all.

    Such an anchor is of an entry that the restore took the place of, and was made before it.

    Args:
        log: The log.
        folder: Of the anchors.
        problems: All that was found, in the log and with the anchors.

    Raises:
        AuditError: If a file cannot be read or is not what it should be.
    """
    restores = [entry for entry in log.entries() if entry.kind == RESTORED]
    kept = _checkpoints(folder / ANCHORS)
    new_key = any(isinstance(entry.data, dict) and "earlier_log" in entry.data for entry in restores)
    since: AuditEntry | None = None
    for problem in problems:
        if problem.file == PUBLIC and new_key:
            continue
        if problem.file != ANCHORS or problem.what == _FORGED:
            return ""
        missing = kept[problem.line - 1]
        since = next((e for e in restores if e.seq <= missing.count and e.at >= missing.at), None)
        if since is None:
            return ""
    if since is None:
        return ""
    return (
        f"entry {since.seq} tells of a restore of an older backup at {since.at:%Y-%m-%d %H:%M:%S} UTC: what "
        "was anchored after that backup was made no longer fits; where you know of that restore, keep "
        f"{str(folder)!r} as it is and begin another folder: `watchkeeper audit anchor NEW_FOLDER`; "
        "otherwise somebody replaced the log"
    )


def _pruned_since(log: AuditLog, folder: Path, problems: tuple[AuditProblem, ...]) -> str:
    """Say that everything that was anchored was pruned, and how to go on; empty where that is not all."""
    if len(problems) != 1 or not problems[0].what.endswith(_ALL_GONE):
        return ""
    statements = [statement for _, statement in read_tombstones(log.folder) if statement is not None]
    if not statements:
        return ""
    last = max(statements, key=lambda statement: statement.count)
    return (
        f"entries up to {last.count} were exported and dropped on {last.at:%Y-%m-%d} by {last.by!r}; where "
        f"you know of that, keep {str(folder)!r} as it is and begin another folder: `watchkeeper audit "
        "anchor NEW_FOLDER`; otherwise somebody replaced the log"
    )


def _hashes(log: Path) -> dict[int, str]:
    """Return the hash of each entry by its number; the first is that of the entry before the log begins."""
    found: dict[int, str] = {}
    try:
        for line in _lines(log):
            entry = AuditEntry.model_validate_json(line)
            found.setdefault(entry.seq - 1, entry.previous)
            found[entry.seq] = hashlib.sha256(line).hexdigest()
    except ValidationError as error:
        raise AuditError(f"{str(log)!r} holds a line that is no entry: it was edited") from error
    return found or {0: GENESIS}


def _checkpoints(path: Path) -> list[Checkpoint]:
    try:
        return [Checkpoint.model_validate_json(line) for line in _lines(path)]
    except ValidationError as error:
        raise AuditError(f"{str(path)!r} holds a line that is no checkpoint: it was edited") from error


def _lines(path: Path) -> list[bytes]:
    """Read the whole lines of a file; the remains of one that a crash tore are left out."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AuditError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    return content.split(b"\n")[:-1]


def _append(path: Path, line: bytes) -> None:
    """Write a line, whole or not at all, in the place of one that a crash or a full disk cut short."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        end = os.pread(descriptor, size, 0).rfind(b"\n") + 1
        if end < size:
            os.ftruncate(descriptor, end)
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)
