"""Freeing disk space that logs take, in a way that can be undone to the byte."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from watchkeeper.tools.action import ActionPlan, Outcome, ProbeAnswer, Reversibility, Verification
from watchkeeper.tools.actions.logfiles import (
    Room,
    ask_rooms,
    choose_room,
    default_rooms,
    look_at,
    reclaimable_range,
    refusal,
    writers_within,
)
from watchkeeper.tools.actions.observed import ObservedAction
from watchkeeper.tools.actions.quarantine import (
    BLOCK,
    FOLDER,
    DamagedQuarantineError,
    Entry,
    Manifest,
    Quarantine,
    Stage,
    cut_state,
    punch,
    write_back,
)
from watchkeeper.tools.durable import digest
from watchkeeper.tools.errors import ApplyError, DriftError, PlanError, RollbackError
from watchkeeper.tools.fact import Arguments, Raw
from watchkeeper.tools.folders import entered
from watchkeeper.tools.folders import opened as open_file
from watchkeeper.tools.host import Target
from watchkeeper.tools.schema import known
from watchkeeper.tools.text import counted, shown_path, size_text


class ReclaimArguments(Arguments):
    """Which logs."""

    files: Annotated[
        tuple[str, ...],
        Field(min_length=1, max_length=10),
        known("log", description="log files whose older content is moved away"),
    ]


class DiskReclaim(ObservedAction[ReclaimArguments]):
    """Move the older content of logs, compressed, to where there is room, and free its blocks in place.

    The newest 64 KiB of each file stay readable where they are. Writers keep their open files and notice
    nothing; nothing they append is lost, whenever they do. See ``watchkeeper.tools.actions.quarantine``.

    Args:
        rooms: Folders that may hold what was moved away, where the host's state folder has no room
            (default: one below ``/var/tmp`` and one below the folder for temporary files).
    """

    name: ClassVar[str] = "disk.reclaim"
    summary: ClassVar[str] = "free disk space by moving older log content away"
    reversibility: ClassVar[Reversibility] = Reversibility.REVERSIBLE
    arguments_type = ReclaimArguments

    def __init__(self, rooms: Sequence[Path] | None = None) -> None:
        self._rooms = default_rooms() if rooms is None else tuple(rooms)

    @property
    def rooms(self) -> tuple[Path, ...]:
        """The folders that may hold what was moved away, besides the one of the host's state."""
        return self._rooms

    def observe(self, target: Target, arguments: ReclaimArguments) -> Raw:
        """Look at the files, at who writes to them, and at where there is room.

        Raises:
            PlanError: If the host is another machine.
        """
        if not target.host.is_local:
            raise PlanError(f"files of host {target.host.name!r} can be moved from that host alone")
        services = target.spec.services
        return {
            "files": [look_at(Path(path)) for path in arguments.files],
            "rooms": [room.as_json() for room in ask_rooms((target.state / FOLDER, *self._rooms))],
            "logs": [str(path) for s in services for path in s.logs],
            "data": [str(path.resolve()) for s in services for path in s.data],
            "configs": [str(p) for s in services for path in s.config for p in (path, path.resolve())],
            "state": str(target.state.resolve()),
        }

    def plan_from(self, raw: Raw, arguments: ReclaimArguments, *, key: str) -> ActionPlan:
        """Say what would be moved where.

        Raises:
            PlanError: If a file is no log of the host's services, or there is room nowhere.
        """
        files = _files(raw)
        if len(set(arguments.files)) != len(arguments.files):
            raise PlanError(f"a file is named twice: {', '.join(arguments.files)}")
        for path, file in zip(arguments.files, files, strict=True):
            reason = refusal(path, file, raw)
            if reason:
                raise PlanError(f"{path!r} cannot be reclaimed: {reason}")
        taken = [
            (path, file, *reclaimable_range(file)) for path, file in zip(arguments.files, files, strict=True)
        ]
        taken = [entry for entry in taken if entry[3] > entry[2]]
        if not taken:
            return ActionPlan(
                key=key, summary="nothing to reclaim: the files hold little more than their newest lines"
            )
        need = _need((end - begin, float(str(f["ratio"]))) for _, f, begin, end in taken)
        room = choose_room(raw, need=need, devices={str(f["device"]) for _, f, _, _ in taken})
        freed = sum(end - begin for _, _, begin, end in taken)
        reads = (
            "the freed part of a file reads as zero bytes, and its apparent size stays, until it is rotated"
        )
        risk = [f"{reads}; its older lines are in {room.path}"]
        if room.volatile:
            risk.append("that folder is in memory: what is in it is lost at a reboot")
        for path, file, _, _ in taken:
            if file["writers"]:
                risk.append(f"{_writer_names(file)} keeps {shown_path(path)} open and goes on writing")
        return ActionPlan(
            key=key,
            summary=f"free {size_text(freed)} by moving older content of {counted(len(taken), 'log')} away",
            diff=_table(taken, need, room),
            preconditions={
                path: {"device": f["device"], "inode": f["inode"], "head": f["head"]}
                for path, f, _, _ in taken
            },
            details={
                "room": str(room.path),
                "files": [
                    {
                        "path": path,
                        "device": f["device"],
                        "inode": f["inode"],
                        "head": f["head"],
                        "begin": begin,
                        "ratio": f["ratio"],
                    }
                    for path, f, begin, _ in taken
                ],
            },
            risk="; ".join(risk),
        )

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:  # noqa: ARG002 (the plan names it)
        """Copy, sync and check each range, then free it; one file after the other.

        Raises:
            DriftError: If a file is not the one that was planned (nothing was changed).
            ApplyError: If there is no room, or it failed half-way; files are either as before or done.
        """
        quarantine = _quarantine(plan)
        with ExitStack() as opened:
            try:
                if quarantine.manifest() is not None:
                    raise ApplyError(f"{plan.key!r} was begun already: {str(quarantine.folder)!r} exists")
                handles = [_open_planned(opened, file) for file in _planned(plan)]
                entries = tuple(_entry(handle, f) for handle, f in zip(handles, _planned(plan), strict=True))
                _still_room(plan, entries)
                manifest = quarantine.begin(entries)
            except (OSError, DamagedQuarantineError) as error:
                raise ApplyError(f"nothing was changed: {error!s:.300}") from error
            done = 0
            try:
                for index, handle in enumerate(handles):
                    manifest = _set_aside(quarantine, manifest, index, handle)
                    done += 1
            except (OSError, DamagedQuarantineError) as error:
                cut = [cut_state(h, e.begin, e.end) for h, e in zip(handles, entries, strict=True)]
                if not any(state is not False for state in cut):
                    quarantine.discard()
                    raise ApplyError(f"nothing was changed: {error!s:.300}") from error
                raise ApplyError(
                    f"{done} of {counted(len(handles), 'file')} done, then: {error!s:.300}; rollback "
                    "restores all of them"
                ) from error
        freed = sum(e.end - e.begin for e in manifest.entries)
        return Outcome(
            detail=f"freed {size_text(freed)}; what was moved away is in {quarantine.folder}",
            changed=tuple(e.path for e in manifest.entries),
        )

    def verify(self, target: Target, plan: ActionPlan) -> Verification:  # noqa: ARG002 (the plan names it)
        """Look whether the space is free, and whether what was moved away can be read and is complete."""
        quarantine = _quarantine(plan)
        freed = 0
        try:
            manifest = quarantine.manifest()
            if manifest is None:
                return Verification(ok=False, detail="nothing was moved away")
            for index, entry in enumerate(manifest.entries):
                with ExitStack() as opened:
                    handle = _open_entry(opened, entry, os.O_RDONLY)
                    if cut_state(handle, entry.begin, entry.end) is not True:
                        return Verification(ok=False, detail=f"{entry.path!r} holds its older content still")
                    if _has_data(handle, entry.begin, entry.end):
                        return Verification(ok=False, detail=f"the blocks of {entry.path!r} are not free")
                if quarantine.digest_of_copy(index) != entry.sha256:
                    return Verification(ok=False, detail=f"the copy of {entry.path!r} is not what it held")
                freed += entry.end - entry.begin
        except (OSError, DamagedQuarantineError) as error:
            return Verification(ok=False, detail=str(error))
        return Verification(ok=True, detail=f"{size_text(freed)} are free, and every copy is complete")

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:  # noqa: ARG002 (the plan names it)
        """Look at the files: all done, none done, or half-done (unknown: rollback restores all)."""
        quarantine = _quarantine(plan)
        try:
            manifest = quarantine.manifest()
            if manifest is None:
                return ProbeAnswer.NOT_DONE if _all_untouched(plan) else ProbeAnswer.UNKNOWN
            states = set()
            for entry in manifest.entries:
                with ExitStack() as opened:
                    handle = _open_entry(opened, entry, os.O_RDONLY)
                    states.add(cut_state(handle, entry.begin, entry.end))
        except (OSError, DamagedQuarantineError):
            return ProbeAnswer.UNKNOWN
        if states == {True}:
            return ProbeAnswer.DONE
        return ProbeAnswer.NOT_DONE if states == {False} else ProbeAnswer.UNKNOWN

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:  # noqa: ARG002 (the plan names it)
        """Write the older content back to where it was; what was appended since stays after it.

        Raises:
            RollbackError: If a file is gone or was written anew, its copy is damaged, or there is no room;
                the others are restored even so.
        """
        quarantine = _quarantine(plan)
        try:
            manifest = quarantine.manifest()
            if manifest is None:
                if not _all_untouched(plan):
                    raise RollbackError(f"what was moved away is not in {str(quarantine.folder)!r} any more")
                return Outcome(detail="nothing was moved away, so there is nothing to restore")
        except (OSError, DamagedQuarantineError) as error:
            raise RollbackError(str(error)) from error
        restored, problems = [], []
        for index, entry in enumerate(manifest.entries):
            if entry.stage not in (Stage.SAVED, Stage.CUT):
                continue
            try:
                _restore(quarantine, index, entry)
                manifest = quarantine.advance(
                    manifest, index, entry.model_copy(update={"stage": Stage.RESTORED})
                )
                quarantine.copy_of(index).unlink(missing_ok=True)
                restored.append(entry.path)
            except (OSError, DamagedQuarantineError) as error:
                problems.append(
                    f"{entry.path!r}: {error!s:.300} (its content is in {quarantine.copy_of(index)})"
                )
        if problems:
            raise RollbackError("; ".join(problems))
        return Outcome(detail=f"restored {counted(len(restored), 'file')}", changed=tuple(restored))


def _need(ranges: Iterable[tuple[int, float]]) -> int:
    """Bytes that copies take, with a margin.

    Args:
        ranges: How many bytes are copied, and to which share of that their kind was compressed.
    """
    return 65536 + int(sum(size * ratio * 1.25 for size, ratio in ranges))


def _still_room(plan: ActionPlan, entries: Sequence[Entry]) -> None:
    """Make sure that there is room for what the logs have grown to.

    Raises:
        DriftError: If there is not.
    """
    room = ask_rooms((Path(str(plan.details["room"])),))[0]
    ratios = (float(str(file.get("ratio", 1.0))) for file in _planned(plan))
    need = _need((e.end - e.begin, ratio) for e, ratio in zip(entries, ratios, strict=True))
    if not room.writable or room.free < need:
        raise DriftError(
            f"{str(room.path)!r} has no room any more: {size_text(need)} needed, {size_text(room.free)} free"
        )


def _set_aside(quarantine: Quarantine, manifest: Manifest, index: int, handle: int) -> Manifest:
    entry = quarantine.save(index, handle, manifest.entries[index])
    manifest = quarantine.advance(manifest, index, entry)
    within = writers_within(os.fstat(handle), entry.end)
    if within:
        raise DamagedQuarantineError(
            f"{within} writes inside of {entry.path!r}, not at its end: it is no log"
        )
    if not _is_as_saved(quarantine, index, handle, entry):
        raise DamagedQuarantineError(f"{entry.path!r} was emptied or written anew while it was copied")
    punch(handle, entry.begin, entry.end)
    return quarantine.advance(manifest, index, entry.model_copy(update={"stage": Stage.CUT}))


def _is_as_saved(quarantine: Quarantine, index: int, handle: int, entry: Entry) -> bool:
    """Whether a range is still what was copied: in the time that took, a log may have been emptied."""
    first = next(quarantine.chunks(index), b"")
    return os.fstat(handle).st_size >= entry.end and os.pread(handle, len(first), entry.begin) == first


def _restore(quarantine: Quarantine, index: int, entry: Entry) -> None:
    if quarantine.digest_of_copy(index) != entry.sha256:
        raise DamagedQuarantineError("its copy is not what it held")
    with ExitStack() as opened:
        handle = _open_entry(opened, entry, os.O_RDWR)
        status = os.fstat(handle)
        if status.st_size < entry.end:
            raise DamagedQuarantineError("it was emptied or written anew since")
        if cut_state(handle, entry.begin, entry.end) is True:
            space = os.fstatvfs(handle)
            free = space.f_bavail * space.f_frsize
            need = entry.end - entry.begin
            if free < need:
                raise DamagedQuarantineError(
                    f"restoring needs {size_text(need)} there, {size_text(need - free)} more than is free"
                )
        try:
            write_back(handle, entry.begin, quarantine.chunks(index))
        except OSError:
            punch(handle, entry.begin, entry.end)  # give the room back: the copy is complete
            raise
        if status.st_size == entry.size:
            os.utime(handle, ns=(status.st_atime_ns, int(entry.mtime_ns)))
            if os.fstat(handle).st_size != entry.size:
                os.utime(handle)


def _open_planned(opened: ExitStack, file: Raw) -> int:
    path = str(file["path"])
    try:
        handle = opened.enter_context(open_file(Path(path), os.O_RDWR))
    except OSError as error:
        raise DriftError(f"{path!r} cannot be opened any more: {error.strerror}") from error
    status = os.fstat(handle)
    if (str(status.st_dev), str(status.st_ino)) != (file["device"], file["inode"]):
        raise DriftError(f"{path!r} is another file than when planned: it was rotated or replaced")
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise DriftError(f"{path!r} is not a plain file with one name any more")
    if _head(handle, int(str(file["begin"]))) != file["head"]:
        raise DriftError(f"{path!r} does not begin as it did when planned: it was emptied or written anew")
    return handle


def _entry(handle: int, file: Raw) -> Entry:
    # The end is read now, not when planned: a log that is filling a disk has grown meanwhile.
    seen: Raw = {"size": os.fstat(handle).st_size, "begin": file["begin"]}
    begin, end = reclaimable_range(seen)
    path = str(file["path"])
    if end <= begin:
        raise DriftError(f"{path!r} has become too short to take anything from")
    within = writers_within(os.fstat(handle), end)
    if within:
        raise DriftError(f"{within} writes inside of {path!r}, not at its end: it is no log")
    return Entry(path=path, device=str(file["device"]), inode=str(file["inode"]), begin=begin, end=end)


def _open_entry(opened: ExitStack, entry: Entry, flags: int) -> int:
    """Open a file of the manifest, also where it was rotated to another name in its folder."""
    path = Path(entry.path)
    folder = opened.enter_context(entered(path.parent))
    listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(listed) as found:
            others = sorted((not item.name.startswith(path.name), item.name) for item in found)
    finally:
        os.close(listed)
    for name in (path.name, *(name for _, name in others)):
        try:
            if not _is_entry(os.stat(name, dir_fd=folder, follow_symlinks=False), entry):
                continue
            handle = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            continue
        opened.callback(os.close, handle)
        # Only what is open cannot be exchanged any more.
        if _is_entry(os.fstat(handle), entry):
            return handle
    raise DamagedQuarantineError("it is gone from its folder: deleted, or replaced by another file")


def _is_entry(status: os.stat_result, entry: Entry) -> bool:
    same = (str(status.st_dev), str(status.st_ino)) == (entry.device, entry.inode)
    return same and stat.S_ISREG(status.st_mode)


def _all_untouched(plan: ActionPlan) -> bool:
    for file in _planned(plan):
        try:
            with open_file(Path(str(file["path"])), os.O_RDONLY) as handle:
                if _head(handle, int(str(file["begin"]))) != file["head"]:
                    return False
        except OSError:
            return False
    return True


def _head(handle: int, begin: int) -> str:
    return digest(os.pread(handle, BLOCK, begin))


def _has_data(handle: int, begin: int, end: int) -> bool:
    try:
        return os.lseek(handle, begin, os.SEEK_DATA) < end
    except OSError:  # ENXIO: there is no data after that
        return False


def _quarantine(plan: ActionPlan) -> Quarantine:
    return Quarantine(Path(str(plan.details["room"])), plan.key)


def _planned(plan: ActionPlan) -> list[Raw]:
    files = plan.details["files"]
    return [f for f in files if isinstance(f, dict)] if isinstance(files, list) else []


def _files(raw: Raw) -> list[Raw]:
    files = raw["files"]
    return [f for f in files if isinstance(f, dict)] if isinstance(files, list) else []


def _writer_names(file: Raw) -> str:
    writers = file["writers"]
    listed = [w for w in writers if isinstance(w, dict)] if isinstance(writers, list) else []
    return ", ".join(f"process {w['pid']} ({w['name']})" for w in listed)


def _table(taken: Sequence[tuple[str, Raw, int, int]], need: int, room: Room) -> str:
    rows = [("file", "size", "stays", "freed")]
    for path, file, begin, end in taken:
        size = int(str(file["size"])) - begin
        rows.append(
            (shown_path(path), size_text(size), size_text(size - (end - begin)), size_text(end - begin))
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
        for row in rows
    ]
    return "\n".join([*lines, f"moved, compressed to at most {size_text(need)}, to {room.path}"]) + "\n"
