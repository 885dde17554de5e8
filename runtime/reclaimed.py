"""What ``disk.reclaim`` moved away stays until a person lets it go: nothing else ever removes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from watchkeeper.runtime.audit_records import RESTORED
from watchkeeper.runtime.errors import RetentionError, UnknownRecordError
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.steps import Step
from watchkeeper.tools.actions import DiskReclaim
from watchkeeper.tools.actions.quarantine import FOLDER, Held, held_below


class Reclaimed(BaseModel):
    """Older content of logs that one step moved away.

    Attributes:
        step: The step, or the name of the folder where that does not tell it any more.
        incident: Its incident; empty where the store does not know it (any more).
        files: The logs.
        size: Bytes of disk that it takes.
        since: When it was moved.
        folder: Where it is.
        kept: Why it may not be let go; empty where it may.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    incident: str
    files: tuple[str, ...]
    size: int
    since: datetime
    folder: Path
    kept: str


def list_reclaimed(site: Site, journal: Journal) -> tuple[Reclaimed, ...]:
    """Return what was moved away from the logs of a site and is still there, the oldest first.

    Raises:
        RetentionError: If the home is another account's.
        StoreError: If the store cannot be read.
        AuditError: If the audit log cannot be read.
        OSError: If a folder cannot be read.
    """
    found = [_described(site, journal, held) for held in _held(site)]
    return tuple(sorted(found, key=lambda one: (one.since, one.step)))


def release_reclaimed(site: Site, journal: Journal, step: str, *, by: str, reason: str = "") -> Reclaimed:
    """Remove for good what a step moved away; after a crash in between it is listed still.

    Args:
        site: Where it was done.
        journal: The store, and the audit log, which is told first.
        step: The step.
        by: Who lets it go.
        reason: Why.

    Returns:
        What it was.

    Raises:
        UnknownRecordError: If nothing of that step is there.
        RetentionError: If it may still be needed, or is not known to be this home's.
        IncidentBusyError: If its incident is being worked at.
        AuditError: If the audit log cannot be written; nothing is removed then.
        OSError: If it cannot be removed.
    """
    held = next((one for one in _held(site) if one.key == step), None)
    if held is None:
        raise UnknownRecordError(
            f"nothing that step {step!r} moved away is here: see `watchkeeper reclaimed list`"
        )
    incident = _described(site, journal, held).incident
    with journal.incidents.lock(incident) if incident else nullcontext():
        found = _described(site, journal, held)
        if found.kept:
            raise RetentionError(
                f"what step {step!r} moved away to {str(found.folder)!r} stays: {found.kept}"
            )
        files: list[JsonValue] = [{"path": one.path, "sha256": one.sha256} for one in held.entries]
        told: dict[str, JsonValue] = {
            "step": step,
            "by": by,
            "reason": reason,
            "folder": str(found.folder),
            "files": files,
        }
        journal.audit.append("reclaimed-released", told)
        held.quarantine.discard()
    return found


def _held(site: Site) -> Iterator[Held]:
    """Look into the folders of all hosts of the home, and into those that all homes of this account share.

    Raises:
        RetentionError: If the home is another account's: nothing is read, or removed, on its behalf.
    """
    owner = site.home.stat().st_uid
    if owner != os.geteuid():
        raise RetentionError(
            f"what was moved away belongs to the account that {str(site.home)!r} belongs to (number "
            f"{owner}): run this as that account"
        )
    roots = sorted((site.home / "hosts").glob(f"*/{FOLDER}"))
    action = site.registry.action(DiskReclaim.name)
    if isinstance(action, DiskReclaim):
        roots += action.rooms
    for root in dict.fromkeys(roots):
        yield from held_below(root)


def _described(site: Site, journal: Journal, held: Held) -> Reclaimed:
    folder = held.quarantine.folder
    since = datetime.fromtimestamp(held.changed, UTC)
    step = _step(journal, held.key)
    kept = held.damage
    if not folder.is_relative_to(site.home):
        if step is not None and step.plan.details.get("room") != str(folder.parent):
            step = None  # it moved what it moved elsewhere
        kept = kept or _not_ours(journal, held.key, step, since)
    if not kept and step is not None:
        kept = _needed(journal, step)
    return Reclaimed(
        step=held.key,
        incident="" if step is None else step.incident_id,
        files=tuple(entry.path for entry in held.entries),
        size=held.size,
        since=since,
        folder=folder,
        kept=kept,
    )


def _step(journal: Journal, key: str) -> Step | None:
    try:
        return journal.steps.get(key)
    except UnknownRecordError:
        return None


def _not_ours(journal: Journal, key: str, step: Step | None, since: datetime) -> str:
    """Say why what lies in a folder that several homes share may be another one's; empty where it is not."""
    removed = key.rpartition("-S")[0]
    if step is None and not journal.incidents.was_removed(removed):
        return "this store knows no such step, so it may be another home's"
    if any(entry.kind == RESTORED and entry.at > since for entry in journal.audit.entries()):
        return "this home was restored from a backup since, so it may be the first one's"
    return ""


def _needed(journal: Journal, step: Step) -> str:
    """Say why it may still be needed; empty where it is not."""
    status = journal.incidents.get(step.incident_id).status
    if not status.ended:
        return f"incident {step.incident_id} has not ended"
    states = {one.state for one in journal.ledger.list(step.incident_id) if one.step_id == step.id}
    if states & {EffectState.INTENDED, EffectState.ROLLING_BACK}:
        return "whether it was done, or taken back, is in doubt"
    if EffectState.ROLLBACK_FAILED in states and status is IncidentStatus.ESCALATED:
        return (
            "taking it back failed, so this may be the only copy; bring it back by hand (it may go once "
            "`watchkeeper incidents prune` has removed its incident)"
        )
    return ""
