"""Finding out whether an audit log is as it was written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from watchkeeper.runtime.audit_keys import fingerprint, is_signed, load_public
from watchkeeper.runtime.audit_records import (
    CHECKPOINTS,
    GENESIS,
    LOG,
    AuditEntry,
    AuditProblem,
    AuditReport,
    Checkpoint,
)
from watchkeeper.runtime.errors import AuditError

_SHOWN = 20
"""Problems after which a report stops: a log that was rewritten has one in every line."""


def verify_log(folder: Path, keys: Path) -> AuditReport:
    """Check every hash, every number and every signature of a log.

    Args:
        folder: Where the log is kept.
        keys: Folder of the public key.

    Raises:
        AuditError: If the files cannot be read, or there is no key to check with.
    """
    log, signed = folder / LOG, folder / CHECKPOINTS
    if not log.exists() and not signed.exists():
        return AuditReport(ok=True, entries=0, head=GENESIS, checkpoints=0, signed=0, notes=("no log yet",))
    public = load_public(keys)
    problems: list[AuditProblem] = []
    notes: list[str] = []
    hashes = _check_entries(log, problems, notes)
    checkpoints = _check_signatures(signed, public, problems, notes)
    for line, checkpoint in checkpoints:
        if checkpoint.count < len(hashes) and hashes[checkpoint.count] != checkpoint.head:
            problems.append(
                AuditProblem(
                    file=LOG,
                    line=checkpoint.count,
                    what=f"entry {checkpoint.count} is not the one that was signed (checkpoint {line})",
                )
            )
    covered = max((checkpoint.count for _, checkpoint in checkpoints), default=0)
    entries = len(hashes) - 1
    if covered > entries:
        problems.append(
            AuditProblem(
                file=LOG,
                line=entries,
                what=f"the tail was cut: {covered} entries were signed, {entries} are there",
            )
        )
    if entries > covered + 1:
        problems.append(
            AuditProblem(
                file=LOG,
                line=covered + 1,
                what=f"{entries - covered} entries at the end were never signed: a crash leaves one at most",
            )
        )
    elif entries > covered and not problems:
        notes.append("the entry at the end is not signed yet (a crash came in between)")
    return AuditReport(
        ok=not problems,
        entries=entries,
        head=hashes[-1],
        checkpoints=len(checkpoints),
        signed=covered,
        key=fingerprint(public),
        problems=tuple(problems[:_SHOWN]),
        notes=tuple(notes),
    )


def _check_entries(path: Path, problems: list[AuditProblem], notes: list[str]) -> list[str]:
    """Check the chain; return the hash of each line, after that of the beginning."""
    hashes = [GENESIS]
    for line, raw in enumerate(_read(path), start=1):
        if not raw.endswith(b"\n"):
            notes.append(
                f"line {line} of {LOG} is torn ({len(raw)} bytes without an end): a crash cut its write "
                "short; the next entry puts the remains aside"
            )
            break
        content = raw.rstrip(b"\n")
        found = hashlib.sha256(content).hexdigest()
        what = _entry_problem(content, line, hashes[-1])
        if what:
            problems.append(AuditProblem(file=LOG, line=line, what=what))
        hashes.append(found)
    return hashes


def _entry_problem(content: bytes, line: int, previous: str) -> str:
    try:
        entry = AuditEntry.model_validate_json(content)
    except ValidationError:
        return "is not an entry"
    if entry.seq != line:
        return f"has number {entry.seq} where {line} belongs: an entry was removed, added or moved"
    if entry.previous != previous:
        return "does not continue the line before: one of the two was edited, removed or moved"
    if entry.line() != content:
        return "is not in canonical form: it was edited"
    return ""


def _check_signatures(
    path: Path, public: Ed25519PublicKey, problems: list[AuditProblem], notes: list[str]
) -> list[tuple[int, Checkpoint]]:
    found: list[tuple[int, Checkpoint]] = []
    highest = -1
    for line, raw in enumerate(_read(path), start=1):
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
        if checkpoint.count <= highest:
            problems.append(AuditProblem(file=CHECKPOINTS, line=line, what="is out of order"))
        highest = max(highest, checkpoint.count)
        found.append((line, checkpoint))
    if not found:
        problems.append(AuditProblem(file=CHECKPOINTS, line=0, what="holds no valid checkpoint"))
    return found


def _read(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AuditError(f"{str(path)!r} cannot be read: {error.strerror}") from error
