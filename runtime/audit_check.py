"""Finding out whether an audit log is as it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import JsonValue, ValidationError

from watchkeeper.runtime.audit_keys import PUBLIC, fingerprint, is_signed, load_public
from watchkeeper.runtime.audit_records import (
    CHECKPOINTS,
    EARLIER,
    GENESIS,
    LOG,
    PRUNED,
    RESTORED,
    AuditEntry,
    AuditProblem,
    AuditReport,
    Checkpoint,
    Tombstone,
)
from watchkeeper.runtime.errors import AuditError

_SHOWN = 20
"""Problems after which a report stops: a log that was rewritten has one in every line."""


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The lines of a log's files at one moment, as they were written.

    Attributes:
        begun: Whether there is a log.
        keyed: Whether there was a key before the log was looked for: it is made with the first entry.
        log: Its entries.
        checkpoints: What signs them.
        pruned: What tells of dropped entries.
    """

    begun: bool
    keyed: bool
    log: Sequence[bytes]
    checkpoints: Sequence[bytes]
    pruned: Sequence[bytes]


def read_log(folder: Path, keys: Path) -> LogFiles:
    """Read the files of a log; the caller keeps others from writing meanwhile.

    Args:
        folder: Where the log is kept.
        keys: Folder of the public key.

    Raises:
        AuditError: If they cannot be read.
    """
    keyed = (keys / PUBLIC).exists()
    return LogFiles(
        keyed=keyed,
        begun=(folder / LOG).exists() or (folder / CHECKPOINTS).exists(),
        log=_read(folder / LOG),
        checkpoints=_read(folder / CHECKPOINTS),
        pruned=_read(folder / PRUNED),
    )


def verify_log(folder: Path, keys: Path) -> AuditReport:
    """Check every hash, every number and every signature of a log that nobody writes.

    Args:
        folder: Where the log is kept.
        keys: Folder of the public key.

    Raises:
        AuditError: If the files cannot be read, or there is no key to check with.
    """
    return check_log(read_log(folder, keys), folder, keys)


def check_log(files: LogFiles, folder: Path, keys: Path) -> AuditReport:
    """Check every hash, every number and every signature of a log that was read.

    Args:
        files: What was read.
        folder: Where it is kept, with the logs that came before it.
        keys: Folder of the public key.

    Raises:
        AuditError: If the earlier logs cannot be read, or there is no key to check with.
    """
    if not files.begun:
        return _nothing(files)
    public = load_public(keys)
    problems: list[AuditProblem] = []
    notes: list[str] = []
    beginning = _beginning(files, public, problems, notes)
    dropped, before = (0, GENESIS) if beginning is None else (beginning.count, beginning.head)
    hashes = _check_entries(files.log, dropped, before, problems, notes)
    checkpoints = _check_signatures(files.checkpoints, public, problems, notes)
    for line, checkpoint in checkpoints:
        place = checkpoint.count - dropped
        if 0 <= place < len(hashes) and hashes[place] != checkpoint.head:
            problems.append(
                AuditProblem(
                    file=LOG,
                    line=place,
                    what=f"entry {checkpoint.count} is not the one that was signed (checkpoint {line})",
                )
            )
    covered = max((checkpoint.count for _, checkpoint in checkpoints), default=0)
    entries = dropped + len(hashes) - 1
    if covered > entries:
        problems.append(
            AuditProblem(
                file=LOG,
                line=entries - dropped,
                what=f"the tail was cut: {covered} entries were signed, {entries} are there",
            )
        )
    if entries > covered + 1:
        problems.append(
            AuditProblem(
                file=LOG,
                line=covered + 1 - dropped,
                what=f"{entries - covered} entries at the end were never signed: a crash leaves one at most",
            )
        )
    elif entries > covered and not problems:
        notes.append("the entry at the end is not signed yet (a crash came in between)")
    problems += _check_earlier(files, folder, beginning)
    return AuditReport(
        ok=not problems,
        entries=entries,
        head=hashes[-1],
        checkpoints=len(checkpoints),
        signed=covered,
        pruned=dropped,
        key=fingerprint(public),
        problems=tuple(problems[:_SHOWN]),
        notes=tuple(notes),
    )


def _nothing(files: LogFiles) -> AuditReport:
    """Report on a log that is not there: its key is made with its first entry, and may have stayed."""
    problems: tuple[AuditProblem, ...] = ()
    if files.keyed:
        what = (
            "is not there, and the key that signs it is: it was removed or moved aside (or a crash came "
            "before its first entry); where you know of that, the next entry begins a new log"
        )
        problems = (AuditProblem(file=LOG, line=0, what=what),)
    return AuditReport(
        ok=not problems,
        entries=0,
        head=GENESIS,
        checkpoints=0,
        signed=0,
        missing=files.keyed,
        problems=problems,
        notes=() if problems else ("no log yet",),
    )


def read_tombstones(folder: Path) -> list[tuple[int, Tombstone | None]]:
    """Return what tells of dropped entries, with its line; None for a line that is no such statement.

    Raises:
        AuditError: If it cannot be read.
    """
    return _tombstones(_read(folder / PRUNED))


def _tombstones(lines: Sequence[bytes]) -> list[tuple[int, Tombstone | None]]:
    found: list[tuple[int, Tombstone | None]] = []
    for line, raw in enumerate(lines, start=1):
        if not raw.endswith(b"\n"):
            break  # a crash cut it short: nothing was dropped for it
        try:
            statement = Tombstone.model_validate_json(raw)
        except ValidationError:
            found.append((line, None))
        else:
            found.append((line, statement if statement.line() + b"\n" == raw else None))
    return found


def _beginning(
    files: LogFiles, public: Ed25519PublicKey, problems: list[AuditProblem], notes: list[str]
) -> Tombstone | None:
    """Return the statement of what was dropped before the log's first entry; None where nothing was."""
    signed: dict[int, Tombstone] = {}
    for line, tombstone in _tombstones(files.pruned):
        if tombstone is None:
            problems.append(
                AuditProblem(file=PRUNED, line=line, what="is not a statement of what was dropped")
            )
        elif not is_signed(public, tombstone.signature, tombstone.content()):
            what = "its signature is not of this site's key"
            problems.append(AuditProblem(file=PRUNED, line=line, what=what))
        else:
            signed[tombstone.count] = tombstone
    entry = _first_entry(files)
    first = None if entry is None else entry.seq
    if first is None and signed:
        first = max(signed) + 1
    if first is None or first <= 1:
        return None
    found = signed.get(first - 1)
    if found is None:
        what = (
            f"begins with entry {first}: the {first - 1} before it were removed, and no signed statement in "
            f"{PRUNED} tells that they were exported and dropped"
        )
        problems.append(AuditProblem(file=LOG, line=1, what=what))
        return None
    notes.append(
        f"entries 1 to {found.count} were dropped on {found.at:%Y-%m-%d} by {found.by!r}; "
        f"the file that holds them has SHA-256 {found.export}"
    )
    return found


def _first_entry(files: LogFiles) -> AuditEntry | None:
    try:
        return AuditEntry.model_validate_json(next(iter(files.log), b""))
    except ValidationError:
        return None


def earlier_log(files: LogFiles) -> dict[str, JsonValue] | None:
    """Return what a log says of the one before it: in its first entry, or where that was dropped, instead."""
    entry = _first_entry(files)
    if entry is None:
        return None
    if entry.kind == RESTORED and isinstance(entry.data, dict):
        earlier = entry.data.get("earlier_log")
        if isinstance(earlier, dict):
            return earlier
    dropped = (one for _, one in _tombstones(files.pruned) if one is not None and one.count == entry.seq - 1)
    last = next(dropped, None)
    return None if last is None else last.earlier_log


def _check_earlier(files: LogFiles, folder: Path, beginning: Tombstone | None) -> list[AuditProblem]:
    """Check the logs that came before this one, each with its own key, and that none was taken away."""
    problems: list[AuditProblem] = []
    named = (earlier_log(files) if beginning is None else beginning.earlier_log) or {}
    name = named.get("folder")
    if isinstance(name, str) and not (folder / name).is_dir():
        what = f"names the earlier log {name!r}, which is not there"
        problems.append(AuditProblem(file=LOG, line=1, what=what))
    for other in sorted(folder.glob(EARLIER)):
        report = verify_log(other, other)
        problems += [
            problem.model_copy(update={"file": f"{other.name}/{problem.file}"}) for problem in report.problems
        ]
        told = {"entries": report.entries, "head": report.head, "key": report.key}
        if other.name == name and {key: named.get(key) for key in told} != told:
            what = "is not the log that the one after it was begun on: it was cut, added to or replaced"
            problems.append(AuditProblem(file=f"{other.name}/{LOG}", line=report.entries, what=what))
    return problems


def _check_entries(
    lines: Sequence[bytes], dropped: int, before: str, problems: list[AuditProblem], notes: list[str]
) -> list[str]:
    """Check the chain; return the hash of each line, after that of what came before."""
    hashes = [before]
    for line, raw in enumerate(lines, start=1):
        if not raw.endswith(b"\n"):
            notes.append(
                f"line {line} of {LOG} is torn ({len(raw)} bytes without an end): a crash cut its write "
                "short; the next entry puts the remains aside"
            )
            break
        content = raw.rstrip(b"\n")
        found = hashlib.sha256(content).hexdigest()
        what = entry_problem(content, dropped + line, hashes[-1])
        if what:
            problems.append(AuditProblem(file=LOG, line=line, what=what))
        hashes.append(found)
    return hashes


def entry_problem(content: bytes, number: int, previous: str) -> str:
    """Say what is wrong with a line as the entry of this number after that hash; empty if nothing is."""
    try:
        entry = AuditEntry.model_validate_json(content)
    except ValidationError:
        return "is not an entry"
    if entry.seq != number:
        return f"has number {entry.seq} where {number} belongs: an entry was removed, added or moved"
    if entry.previous != previous:
        return "does not continue the line before: one of the two was edited, removed or moved"
    if entry.line() != content:
        return "is not in canonical form: it was edited"
    return ""


def _check_signatures(
    lines: Sequence[bytes], public: Ed25519PublicKey, problems: list[AuditProblem], notes: list[str]
) -> list[tuple[int, Checkpoint]]:
    found: list[tuple[int, Checkpoint]] = []
    highest = -1
    for line, raw in enumerate(lines, start=1):
        if not raw.endswith(b"\n"):
            notes.append(f"line {line} of {CHECKPOINTS} is torn: a crash cut its write short")
            break
        try:
            checkpoint = Checkpoint.model_validate_json(raw)
        except ValidationError:
            problems.append(AuditProblem(file=CHECKPOINTS, line=line, what="is not a checkpoint"))
            continue
        content = Checkpoint.content(checkpoint.count, checkpoint.head, checkpoint.at)
        if not is_signed(public, checkpoint.signature, content):
            problems.append(
                AuditProblem(file=CHECKPOINTS, line=line, what="its signature is not of this site's key")
            )
            continue
        if checkpoint.line() != raw.rstrip(b"\n"):
            what = "is not in canonical form: it was edited"
            problems.append(AuditProblem(file=CHECKPOINTS, line=line, what=what))
        if checkpoint.count <= highest:
            problems.append(AuditProblem(file=CHECKPOINTS, line=line, what="is out of order"))
        highest = max(highest, checkpoint.count)
        found.append((line, checkpoint))
    if not found:
        problems.append(AuditProblem(file=CHECKPOINTS, line=0, what="holds no valid checkpoint"))
    return found


def _read(path: Path) -> list[bytes]:
    """Lines as they were written: one ends with a line feed, and with nothing else."""
    try:
        with path.open("rb") as file:
            return list(file)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AuditError(f"{str(path)!r} cannot be read: {error.strerror}") from error
