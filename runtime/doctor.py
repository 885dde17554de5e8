"""Looking a home over: what is damaged or wrong, where, and what to do about it; nothing is changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from watchkeeper.agents import Agent
from watchkeeper.models.catalog import CATALOG, find_model
from watchkeeper.models.endpoint import is_endpoint
from watchkeeper.models.errors import ModelError
from watchkeeper.models.store import is_installed, verify_installed
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.audit_keys import PRIVATE
from watchkeeper.runtime.backup import DATABASE
from watchkeeper.runtime.clock import Clock, utc_now
from watchkeeper.runtime.doctor_records import Suspicion, examine_records
from watchkeeper.runtime.errors import (
    AuditError,
    ConfigurationError,
    IdentityError,
    OperationError,
    StoreError,
)
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.migrations import newest_schema
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.runs import RunFile
from watchkeeper.runtime.settings import Settings, load_settings
from watchkeeper.runtime.store import Store
from watchkeeper.runtime.user_changes import lacks_admin, owner_of
from watchkeeper.runtime.users import FILE as USERS
from watchkeeper.runtime.users import FIRST_ADMIN
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import PluginError, ToolError
from watchkeeper.tools.inventory import Inventory, Supervisord
from watchkeeper.tools.plugins import AGENTS, load_plugins, load_registry
from watchkeeper.tools.sandbox import find_sandbox

LEAST_FREE = 512 << 20
"""Bytes free on the home's file system under which it is nearly full."""

NO_ROOM = 16 << 20
"""Bytes free under which work stops soon."""

AHEAD = timedelta(minutes=5)
"""How far clocks may differ before it is said."""


class Gravity(StrEnum):
    """How bad a finding is."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Found(BaseModel):
    """One thing that was found.

    Attributes:
        gravity: How bad it is; a note is nothing wrong.
        area: What was looked at.
        place: Where exactly.
        what: What is found.
        advice: What to do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gravity: Gravity
    area: str
    place: str
    what: str
    advice: str = ""

    @property
    def wrong(self) -> bool:
        """Whether something is wrong."""
        return self.gravity is not Gravity.NOTE


def examine(home: Path, *, models: bool = False, now: Clock = utc_now) -> tuple[Found, ...]:
    """Look a home over; the worst comes first.

    Args:
        home: The home.
        models: Hash the files of all models, too; that takes seconds for each gigabyte.
        now: The time.
    """
    doctor = _Doctor(home, now())
    found = [*doctor.home(), *doctor.users(), *doctor.sandbox(), *doctor.configuration()]
    found += [*doctor.audit(), *doctor.database()]
    if models:
        found += doctor.models()
    order = [Gravity.ERROR, Gravity.WARNING, Gravity.NOTE]
    return tuple(sorted(found, key=lambda item: order.index(item.gravity)))


class _Doctor:
    def __init__(self, home: Path, now: datetime) -> None:
        self._home = home
        self._now = now
        # What is wrong in the environment is told by `configuration`, and ends nothing here.
        self._settings = Settings.model_construct(home=home)

    def home(self) -> Iterator[Found]:
        """The folder itself, and room on its disk."""
        if not self._home.is_dir():
            yield _note("home", self._home, "is not there yet", "run `watchkeeper init`")
            return
        owner = self._home.stat().st_uid
        if os.geteuid() not in {0, owner}:
            yield _error("home", self._home, f"belongs to another user ({owner})", "run as that user")
            return
        for path in (self._home, self._home / DATABASE, self._home / "audit", self._home / "keys"):
            if path.exists() and path.stat().st_mode & 0o077:
                mode = f"{path.stat().st_mode & 0o777:o}"
                advice = f"chmod go-rwx {path}"
                yield _warning("home", path, f"can be read or written by others (mode {mode})", advice)
        free = shutil.disk_usage(self._home).free
        if free < LEAST_FREE:
            report = _error if free < NO_ROOM else _warning
            said = f"its file system has {free / 1e6:.0f} MB left"
            yield report("disk", self._home, said, "free some space: nothing goes on unrecorded")

    def users(self) -> Iterator[Found]:
        """The users file, and whether somebody may say who the users are."""
        path = self._home / USERS
        try:
            lacking = lacks_admin(self._home)
        except IdentityError as error:
            yield _error("users", path, str(error), "mend the file")
            return
        if lacking:
            advice = f"as the home's owner ({owner_of(self._home)}) or root: `{FIRST_ADMIN}`"
            said = "names no admin who can sign in: nobody else may say who the users are"
            yield _warning("users", path, said, advice)

    def sandbox(self) -> Iterator[Found]:
        """What holds the commands of facts on this machine."""
        sandbox = find_sandbox()
        if sandbox.missing:
            yield _note(
                "sandbox", "this machine", sandbox.note, "the limits of time and output hold all the same"
            )

    def configuration(self) -> Iterator[Found]:
        """Settings, inventory, policy, escalation rules and run files."""
        try:
            self._settings = load_settings(home=self._home)
        except ConfigurationError as error:
            yield _error("configuration", self._home / "config.yaml", str(error), "mend the file")
        settings, registry = self._settings, builtin_registry()
        try:
            registry = load_registry(settings.tools, settings.log_predictor)
            load_plugins(AGENTS, settings.agents, (Agent,))
        except PluginError as error:
            yield _error("plugins", self._home, str(error), "mend or remove it: no command works without it")
        path = settings.inventory_path
        if not path.exists():
            yield _note("inventory", path, "is not there: no host can be touched", "run `watchkeeper init`")
        else:
            yield from _loaded("inventory", path, lambda: Inventory.load(path))
            with contextlib.suppress(ToolError):
                yield from _missing_paths(path, Inventory.load(path))
        if (policy := settings.policy_path) is not None:
            yield from _loaded("policy", policy, lambda: Policy.load(policy, registry))
        if (rules := settings.escalation_path) is not None:
            yield from _loaded("escalation rules", rules, lambda: EscalationRules.load(rules))
        for run in sorted((self._home / "runs").glob("*.json")):
            yield from _loaded("run file", run, partial(RunFile.read, self._home, run.stem))
        if not is_endpoint(settings.model):
            try:
                if not is_installed(find_model(settings.model), self._home):
                    advice = f"watchkeeper models pull {settings.model}"
                    yield _note("models", settings.model, "is configured and not on this machine", advice)
            except ModelError as error:
                yield _error("models", settings.model, str(error), "name another model")

    def audit(self) -> Iterator[Found]:
        """The audit log, its key, and whether its times go forward."""
        log = AuditLog(self._home)
        advice = "find out who changed it; restore it from a backup, or move the audit folder aside"
        try:
            report = log.verify()
        except AuditError as error:
            yield _error("audit", log.path, str(error), "restore it from a backup")
            return
        if report.missing:
            advice = "find out who took it; restore it from a backup, or let the next entry begin a new log"
        for problem in report.problems:
            yield _error("audit", f"{log.folder / problem.file} line {problem.line}", problem.what, advice)
        for note in report.notes:
            if log.path.exists():
                yield _note("audit", log.path, note)
        key = log.keys / PRIVATE
        if report.entries and not key.exists():
            yield _error("audit key", key, "is missing: no entry can be signed", "restore it from its copy")
        elif key.exists() and key.stat().st_mode & 0o077:
            yield _error("audit key", key, "can be read by others, who could sign", f"chmod 600 {key}")
        if report.ok:
            yield from self._times(log)

    def _times(self, log: AuditLog) -> Iterator[Found]:
        advice = "set the clock right, and keep it so: deadlines and schedules depend on it"
        before: datetime | None = None
        with contextlib.suppress(AuditError):
            for entry in log.entries():
                place = f"{log.path} entry {entry.seq}"
                if entry.at > self._now + AHEAD:
                    yield _warning("clock", place, f"was written in the future, at {entry.at}", advice)
                    return
                if before is not None and entry.at < before - AHEAD:
                    said = f"was written at {entry.at}, after one of {before}: the clock was set back"
                    yield _warning("clock", place, said, advice)
                    return
                before = entry.at

    def database(self) -> Iterator[Found]:
        """The database: whether it can be read, is of this release, and makes sense."""
        place = self._settings.store_place
        if isinstance(place, str):
            yield from self._on_a_server(place)
            return
        path = place
        if not path.exists():
            yield _note("database", path, "is not there yet: nothing happened here")
            return
        try:
            broken, version = _read_raw(path)
        except sqlite3.Error as error:
            yield _error("database", path, f"cannot be read ({error})", _RESTORE)
            return
        for what in broken:
            yield _error("database", path, what, _RESTORE)
        if version is None or not version.isdecimal():
            yield _error("database", path, "is not one of Watchkeeper", "name another WATCHKEEPER_HOME")
        elif int(version) > newest_schema():
            said = f"has schema {version}, this release knows {newest_schema()}"
            yield _error("database", path, said, "use the release that wrote it")
        elif int(version) < newest_schema():
            yield _older(path, int(version), "back it up first: `watchkeeper backup`")
        elif not broken:
            yield from self._records(path, str(path))

    def _on_a_server(self, url: str) -> Iterator[Found]:
        """Judge a database that is not here by its records, without making or changing a table."""
        try:
            with Store(url, migrate=False) as store:
                place, version = store.place, store.schema
        except StoreError as error:
            yield _error("database", "store", str(error), _RESTORE)
            return
        if version is None:
            yield _note("database", place, "is empty: nothing happened here")
        elif version < newest_schema():
            yield _older(place, version, "dump it first: `pg_dump`")
        else:
            yield from self._records(url, place)

    def _records(self, place: Path | str, shown: str) -> Iterator[Found]:
        try:
            with Store(place, migrate=False) as store:
                now = store.now() if store.shared else self._now
                for suspicion in examine_records(store, now, locks=self._home / "locks"):
                    yield _of(suspicion, shown)
        except StoreError as error:
            yield _error("database", shown, str(error), _RESTORE)

    def models(self) -> Iterator[Found]:
        """The files of every model that is installed."""
        for entry in CATALOG:
            if not (self._home / "models" / entry.id).is_dir():
                continue
            try:
                verify_installed(entry, self._home)
            except (ModelError, OSError) as error:
                advice = f"watchkeeper models remove {entry.id}, and pull it again"
                yield _error("models", entry.id, str(error), advice)


def _missing_paths(path: Path, inventory: Inventory) -> Iterator[Found]:
    """What an inventory names and this machine does not have; a log may be written later, its folder not."""
    for host in inventory.hosts:
        for service in host.services:
            named = [("log", log) for log in service.logs]
            named += [("configuration", file) for file in service.config]
            named += [("data", folder) for folder in service.data]
            if isinstance(service.supervisor, Supervisord):
                named.append(("socket of supervisord", service.supervisor.socket))
            for kind, place in named:
                if not _is_missing(place):
                    continue
                said = f"names {str(place)!r}, {kind} of service {service.name}, which is not there"
                if kind == "log" and not _is_missing(place.parent):
                    yield _note("inventory", path, f"{said} yet")
                else:
                    yield _warning("inventory", path, said, "correct it, or look why it is missing")


def _is_missing(place: Path) -> bool:
    """Whether nothing is there for sure; what may not be looked at may be."""
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


_RESTORE = "restore a backup with `watchkeeper restore`, or move it aside to start anew"


def _read_raw(path: Path) -> tuple[list[str], str | None]:
    """Say what is broken in a database file, and of which schema it is, without changing it."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        said = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
        broken = [] if said == ["ok"] else [f"is damaged: {' '.join(what.split())}" for what in said]
        for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
            broken.append(f"row {row} of {table!r} belongs to a row of {parent!r} that is not there")
        try:
            query = "SELECT value FROM watchkeeper_meta WHERE name = 'schema'"
            version = connection.execute(query).fetchone()
        except sqlite3.OperationalError:
            return broken, None
        return broken[:20], None if version is None else str(version[0])


def _older(place: Path | str, version: int, advice: str) -> Found:
    said = f"has schema {version} and becomes {newest_schema()} when it is opened next"
    return _note("database", place, said, advice)


def _loaded(area: str, path: Path, load: Callable[[], object]) -> Iterator[Found]:
    try:
        load()
    except (OperationError, ToolError) as error:
        yield _error(area, path, str(error), "mend the file")


def _of(suspicion: Suspicion, shown: str) -> Found:
    report = {"error": _error, "warning": _warning, "note": _note}[suspicion.gravity]
    place = f"{shown} {suspicion.place}".rstrip()
    return report(suspicion.area, place, suspicion.what, suspicion.advice)


def _note(area: str, place: Path | str, what: str, advice: str = "") -> Found:
    return Found(gravity=Gravity.NOTE, area=area, place=str(place), what=what, advice=advice)


def _warning(area: str, place: Path | str, what: str, advice: str) -> Found:
    return Found(gravity=Gravity.WARNING, area=area, place=str(place), what=what, advice=advice)


def _error(area: str, place: Path | str, what: str, advice: str) -> Found:
    return Found(gravity=Gravity.ERROR, area=area, place=str(place), what=what, advice=advice)
