"""The last good versions of configuration files: what they held while the service was healthy."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from watchkeeper.tools.configtext import parse_problem
from watchkeeper.tools.durable import digest, private_folder, read_stable, write_durably
from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.host import Target
from watchkeeper.tools.supervisors import supervisor_of

MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_VERSIONS = 10

# Supervisors tell the second in which a process was started, not the moment.
_START_RESOLUTION = timedelta(seconds=1)


class ConfigVersion(BaseModel):
    """One version of a configuration file.

    Attributes:
        digest: SHA-256 of its content.
        mode: Its permission bits.
        uid: Its owner.
        gid: Its group.
        recorded_at: When it was first known to be good (UTC).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    mode: int
    uid: int
    gid: int
    recorded_at: AwareDatetime


class _History(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    versions: tuple[ConfigVersion, ...]


class ConfigArchive:
    """Versions of configuration files, by path; contents by digest.

    Contents may hold secrets, so the folder and all in it are readable by this user alone.

    Args:
        folder: Where it lives; made on first use.
        limit: Versions that are kept of each file.
    """

    def __init__(self, folder: Path, *, limit: int = MAX_VERSIONS) -> None:
        self._folder = folder
        self._limit = limit

    @classmethod
    def of(cls, target: Target) -> ConfigArchive:
        """Return the archive of a host."""
        return cls(target.state / "configs")

    def record(self, path: Path, *, now: datetime) -> ConfigVersion:
        """Keep the file's present content as its last good version.

        Recording the same content, mode and owner again changes nothing.

        Raises:
            CollectError: If the file is missing, or cannot be read or kept.
        """
        read = _read(path)
        if read is None:
            raise CollectError(f"configuration file {str(path)!r} is missing, so it cannot be recorded")
        content, status = read
        version = ConfigVersion(
            digest=digest(content),
            mode=status.st_mode & 0o7777,
            uid=status.st_uid,
            gid=status.st_gid,
            recorded_at=now,
        )
        try:
            with self._locked():
                return self._add(path, version, content)
        except OSError as error:
            raise CollectError(
                f"configuration file {str(path)!r} cannot be kept in {str(self._folder)!r}: {error.strerror}"
            ) from error

    def versions(self, path: Path) -> tuple[ConfigVersion, ...]:
        """Return what is known of a file, the newest first.

        Raises:
            CollectError: If the archive is damaged.
        """
        index = self._index(path)
        try:
            return _History.model_validate_json(index.read_bytes()).versions
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            raise CollectError(
                f"{str(index)!r} in the configuration archive is damaged; move it away to go on without "
                f"the history of {str(path)!r}"
            ) from error

    def last_good(self, path: Path) -> ConfigVersion | None:
        """Return the newest version of a file; None if none was recorded.

        Raises:
            CollectError: If the archive is damaged.
        """
        versions = self.versions(path)
        return versions[0] if versions else None

    def content(self, version: ConfigVersion) -> bytes:
        """Return what a version holds.

        Raises:
            CollectError: If it is not there any more, or not what was recorded.
        """
        try:
            content = self._object(version.digest).read_bytes()
        except OSError as error:
            raise CollectError(
                f"version {version.digest[:12]!r} is not in the configuration archive {str(self._folder)!r}: "
                f"{error.strerror}"
            ) from error
        if digest(content) != version.digest:
            raise CollectError(
                f"version {version.digest[:12]!r} in the configuration archive {str(self._folder)!r} is "
                "damaged"
            )
        return content

    def _add(self, path: Path, version: ConfigVersion, content: bytes) -> ConfigVersion:
        before = self.versions(path)
        if before and before[0] == version.model_copy(update={"recorded_at": before[0].recorded_at}):
            return before[0]
        target = self._object(version.digest)
        if not target.exists():
            write_durably(target, content)
        older = tuple(v for v in before if v.digest != version.digest)
        history = _History(path=str(path), versions=(version, *older)[: self._limit])
        write_durably(self._index(path), history.model_dump_json().encode())
        self._forget(v for v in before if v.digest not in {kept.digest for kept in history.versions})
        return version

    def _forget(self, dropped: Iterator[ConfigVersion]) -> None:
        gone = {v.digest for v in dropped}
        if not gone:
            return
        for index in (self._folder / "index").glob("*.json"):
            try:
                history = _History.model_validate_json(index.read_bytes())
            except ValidationError:
                return  # what a damaged one still needs cannot be told, so all contents are kept
            gone -= {v.digest for v in history.versions}
        for name in gone:
            self._object(name).unlink(missing_ok=True)

    def _index(self, path: Path) -> Path:
        return self._folder / "index" / f"{hashlib.sha256(str(path).encode()).hexdigest()}.json"

    def _object(self, name: str) -> Path:
        return self._folder / "objects" / name

    @contextmanager
    def _locked(self) -> Iterator[None]:
        private_folder(self._folder)
        private_folder(self._folder / "index")
        private_folder(self._folder / "objects")
        handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def record_good_configs(target: Target, service: str, *, now: datetime | None = None) -> tuple[Path, ...]:
    """Keep the configuration files of a service as good; called while its checks pass.

    That a service is well says nothing about a file that it has not read: a file counts only if the
    service's process was started after the file's last change, and if the file can be parsed. A service
    that reads its configuration again without a restart therefore has its changes recorded at its next
    start.

    Returns:
        The files whose present content is the last good version now.

    Raises:
        InventoryError: If the host has no such service.
        CollectError: If its supervisor cannot be asked, or a file cannot be kept.
    """
    files = target.spec.service(service).config
    if not files:
        return ()
    state = supervisor_of(target, service).status()
    if not state.is_up or state.started is None:
        return ()
    archive = ConfigArchive.of(target)
    recorded = []
    for path in files:
        try:
            read = _read(path)
        except CollectError:
            continue  # a link, or what this user may not read: that keeps no other file from being kept
        if read is None:
            continue
        content, status = read
        changed = datetime.fromtimestamp(max(status.st_mtime, status.st_ctime), UTC)
        if changed < state.started + _START_RESOLUTION and not parse_problem(path, content):
            archive.record(path, now=now or datetime.now(UTC))
            recorded.append(path)
    return tuple(recorded)


def _read(path: Path) -> tuple[bytes, os.stat_result] | None:
    try:
        return read_stable(path, limit=MAX_CONFIG_BYTES)
    except OSError as error:
        raise CollectError(f"configuration file {str(path)!r} cannot be read: {error.strerror}") from error
