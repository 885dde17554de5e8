"""Bringing back the last version of a configuration file under which its service was healthy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.tools.action import ActionPlan, Outcome, ProbeAnswer, Reversibility, Verification
from watchkeeper.tools.actions.observed import ObservedAction
from watchkeeper.tools.archive import MAX_CONFIG_BYTES, ConfigArchive, ConfigVersion
from watchkeeper.tools.configtext import as_bytes, as_text, redacted_diff
from watchkeeper.tools.durable import (
    FileMeta,
    digest,
    folder_name,
    private_folder,
    read_stable,
    remove_in,
    sync_entered,
    sync_folder,
    temporary_of,
    write_durably,
)
from watchkeeper.tools.errors import ApplyError, CollectError, DriftError, PlanError, RollbackError
from watchkeeper.tools.fact import Arguments, Raw
from watchkeeper.tools.folders import entered
from watchkeeper.tools.host import Target
from watchkeeper.tools.schema import known
from watchkeeper.tools.text import shown_path

MISSING = "missing"


class RestoreArguments(Arguments):
    """Which file."""

    path: Annotated[str, known("config", description="configuration file to restore")]


class _Saved(BaseModel):
    """What the file was before: permissions, owner and time (as text: JSON numbers end at 2**53)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: str = "0"


class ConfigRestore(ObservedAction[RestoreArguments]):
    """Replace a configuration file by its last good version; rollback brings back the present one."""

    name: ClassVar[str] = "config.restore"
    summary: ClassVar[str] = "restore the last good version of a configuration file"
    reversibility: ClassVar[Reversibility] = Reversibility.REVERSIBLE
    arguments_type = RestoreArguments

    def observe(self, target: Target, arguments: RestoreArguments) -> Raw:
        """Read the file and its last good version.

        Raises:
            PlanError: If the file is none of the inventory, or either cannot be read.
        """
        if not target.host.is_local:
            raise PlanError(f"files of host {target.host.name!r} can be restored from that host alone")
        path = Path(arguments.path)
        owners = [s.name for s in target.spec.services if path in s.config]
        if not owners:
            raise PlanError(f"{arguments.path!r} is not a configuration file of a service in the inventory")
        archive = ConfigArchive.of(target)
        try:
            read = read_stable(path, limit=MAX_CONFIG_BYTES)
            version = archive.last_good(path)
            good = None if version is None else archive.content(version)
        except OSError as error:
            raise PlanError(
                f"configuration file {arguments.path!r} cannot be restored: {error.strerror}"
            ) from error
        except CollectError as error:
            raise PlanError(str(error)) from error
        return {
            "services": [*owners],
            "current": None
            if read is None
            else {"content": as_text(read[0]), "links": read[1].st_nlink, "digest": digest(read[0])},
            "good": None
            if version is None or good is None
            else {"content": as_text(good), **version.model_dump(mode="json")},
        }

    def plan_from(self, raw: Raw, arguments: RestoreArguments, *, key: str) -> ActionPlan:
        """Show how the file would change, without its secrets.

        Raises:
            PlanError: If no good version is known.
        """
        path, current, good = arguments.path, raw["current"], raw["good"]
        services = raw["services"]
        names = ", ".join(map(str, services)) if isinstance(services, list) else ""
        if not isinstance(good, dict):
            raise PlanError(
                f"no version of {path!r} is known under which service {names} was healthy, so there is "
                "nothing to restore"
            )
        before, content = MISSING, b""
        if isinstance(current, dict):
            before, content = str(current["digest"]), as_bytes(str(current["content"]))
            if current["links"] != 1:
                raise PlanError(
                    f"{path!r} has {current['links']} names (hard links): restoring it would part them; "
                    "restore it by hand"
                )
        if before == good["digest"]:
            return ActionPlan(key=key, summary=f"{shown_path(path)} is as in its last good version")
        diff = redacted_diff(content, as_bytes(str(good["content"])), path=shown_path(path))
        return ActionPlan(
            key=key,
            summary=f"restore {shown_path(path)} of service {names} as it was known to be good on "
            f"{str(good['recorded_at'])[:16].replace('T', ' ')} UTC",
            diff=diff.text,
            preconditions={"path": path, "current": before, "good": good["digest"]},
            details={
                "path": path,
                "current": before,
                "good": {k: v for k, v in good.items() if k != "content"},
            },
            risk="the service goes on with what it has read until it is restarted or reads its configuration "
            "again; whatever was meant by the change is undone",
        )

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Save the present file, and replace it in one step.

        Raises:
            DriftError: If either version is not the one that was planned (nothing was changed).
            ApplyError: If it cannot be written (the file is as before).
        """
        path, good = _path(plan), _good(plan)
        try:
            content = ConfigArchive.of(target).content(good)
        except CollectError as error:
            raise DriftError(str(error)) from error
        try:
            read = read_stable(path, limit=MAX_CONFIG_BYTES)
            _check_unchanged(plan, read)
            folder = _folder(target, plan)
            private_folder(folder.parent)
            private_folder(folder)
            sync_folder(folder.parent)
            meta = FileMeta(good.mode, good.uid, good.gid, 0)
            saved = _Saved(digest=MISSING)
            if read is not None:
                meta = FileMeta.of(read[1])
                saved = _Saved(
                    digest=digest(read[0]),
                    mode=meta.mode,
                    uid=meta.uid,
                    gid=meta.gid,
                    mtime_ns=str(meta.mtime_ns),
                )
                write_durably(folder / "content", read[0])
            write_durably(folder / "saved.json", saved.model_dump_json().encode())
            with entered(path.parent) as place:
                _check_unchanged(plan, read_stable(path, limit=MAX_CONFIG_BYTES))
                write_durably(path, content, meta=meta, folder=place)
        except OSError as error:
            raise ApplyError(
                f"{str(path)!r} could not be restored and is as before: {error.strerror}"
            ) from error
        return Outcome(detail=f"restored {path}; the version before is kept", changed=(str(path),))

    def verify(self, target: Target, plan: ActionPlan) -> Verification:  # noqa: ARG002 (the plan names it)
        """Look whether the file holds the good version."""
        path, found = _path(plan), _present(plan)
        if found == _good(plan).digest:
            return Verification(ok=True, detail=f"{path} holds its last good version")
        return Verification(ok=False, detail=f"{path} does not hold its last good version")

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:  # noqa: ARG002 (the plan names it)
        """Compare the file with both versions."""
        found = _present(plan)
        if found == _good(plan).digest:
            return ProbeAnswer.DONE
        return ProbeAnswer.NOT_DONE if found == plan.details["current"] else ProbeAnswer.UNKNOWN

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
        """Bring back the file as it was, with permissions, owner and time; safe to repeat.

        Raises:
            RollbackError: If the file was changed again since, or what it was is not known.
        """
        path, found = _path(plan), _present(plan)
        before = plan.details["current"]
        if found not in (before, _good(plan).digest):
            raise RollbackError(
                f"{str(path)!r} was changed again since it was restored: compare it with the version kept in "
                f"{str(_folder(target, plan))!r}, and decide"
            )
        try:
            with entered(path.parent) as place:
                remove_in(place, temporary_of(path).name)
                saved = _read_saved(_folder(target, plan))
                if saved is None:
                    if found == before:
                        return Outcome(detail=f"{path} was not changed, so there is nothing to undo")
                    raise RollbackError(
                        f"what {str(path)!r} was is not in {str(_folder(target, plan))!r} any more"
                    )
                if saved.digest == MISSING:
                    remove_in(place, path.name)
                    sync_entered(place)
                    return Outcome(detail=f"{path} is missing again, as it was", changed=(str(path),))
                if found != before:
                    content = (_folder(target, plan) / "content").read_bytes()
                    if digest(content) != saved.digest:
                        raise RollbackError(f"the saved version of {str(path)!r} is damaged")
                    meta = FileMeta(saved.mode, saved.uid, saved.gid, int(saved.mtime_ns))
                    write_durably(path, content, meta=meta, folder=place)
                seen = os.stat(path.name, dir_fd=place, follow_symlinks=False).st_atime_ns
                os.utime(path.name, ns=(seen, int(saved.mtime_ns)), dir_fd=place, follow_symlinks=False)
        except (OSError, ValidationError) as error:
            raise RollbackError(f"{str(path)!r} could not be brought back: {error!s:.300}") from error
        return Outcome(detail=f"{path} is as it was before", changed=(str(path),))


def _check_unchanged(plan: ActionPlan, read: tuple[bytes, os.stat_result] | None) -> None:
    found = MISSING if read is None else digest(read[0])
    if found != plan.preconditions["current"] or (read is not None and read[1].st_nlink != 1):
        raise DriftError(f"{plan.details['path']!r} was changed since the plan was made")


def _present(plan: ActionPlan) -> str:
    try:
        read = read_stable(_path(plan), limit=MAX_CONFIG_BYTES)
    except OSError:
        return ""
    return MISSING if read is None else digest(read[0])


def _read_saved(folder: Path) -> _Saved | None:
    try:
        return _Saved.model_validate_json((folder / "saved.json").read_bytes())
    except FileNotFoundError:
        return None


def _folder(target: Target, plan: ActionPlan) -> Path:
    return target.state / "restored" / folder_name(plan.key)


def _path(plan: ActionPlan) -> Path:
    return Path(str(plan.details["path"]))


def _good(plan: ActionPlan) -> ConfigVersion:
    return ConfigVersion.model_validate(plan.details["good"])
