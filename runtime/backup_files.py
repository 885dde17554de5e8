"""What a backup consists of: a manifest with a digest for every file, in one archive."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.runtime.errors import BackupError

FORMAT = 1
MANIFEST = "manifest.json"
HOME = "home"
ELSEWHERE = "elsewhere"
_BLOCK = 1 << 20
_LARGEST_MANIFEST = 1 << 28


class BackedUpFile(BaseModel):
    """A file of an archive.

    Attributes:
        size: Bytes.
        sha256: Of its content.
        mode: Its permissions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str
    mode: int


class BackupManifest(BaseModel):
    """What an archive holds.

    Attributes:
        format: Layout of the archive.
        made_at: When (UTC).
        by: Who made it.
        version: Of Watchkeeper.
        home: The folder that was backed up.
        database: Whether the database is in it; one on a server is not.
        store: Name of the database in the home.
        with_key: Whether the key that signs the audit log is in it.
        live: Incidents that were not ended.
        audit_entries: Number of the last audit entry.
        audit_head: Its hash.
        elsewhere: Configuration from outside the home: where each lay, by its name in the archive.
        files: Every other file of the archive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    made_at: datetime
    by: str
    version: str
    home: str
    database: bool
    store: str = "watchkeeper.db"
    with_key: bool
    live: tuple[str, ...]
    audit_entries: int
    audit_head: str
    elsewhere: dict[str, str]
    files: dict[str, BackedUpFile]


def copy_file(source: Path, target: Path, *, whole_lines: bool = False) -> None:
    """Copy a file with its permissions and times.

    Args:
        source: The file.
        target: Where to; its folder is made.
        whole_lines: Leave out what stands after the last end of line.
    """
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = source.stat()
    with source.open("rb") as reading:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as writing:
            if whole_lines:
                content = reading.read()
                writing.write(content[: content.rfind(b"\n") + 1])
            else:
                while block := reading.read(_BLOCK):
                    writing.write(block)
    target.chmod(stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def digest_tree(root: Path) -> dict[str, BackedUpFile]:
    """Hash every file below a folder, by its path in it."""
    return {str(path.relative_to(root)): _digest(path) for path in sorted(root.rglob("*")) if path.is_file()}


def write_archive(path: Path, root: Path, manifest: BackupManifest, *, owner: os.stat_result) -> str:
    """Pack a folder and its manifest into an archive, whole or not at all; returns its SHA-256.

    Args:
        path: The archive; it must not be there.
        root: The folder.
        manifest: What is in the folder.
        owner: Whose it is: root may have made the copies.
    """

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid, member.gid = owner.st_uid, owner.st_gid
        member.uname = member.gname = ""
        return member

    manifest_file = root / MANIFEST
    manifest_file.write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    part = root.with_suffix(".part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w+b") as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
            for name in (MANIFEST, *manifest.files):
                archive.add(root / name, arcname=name, recursive=False, filter=owned)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        sha256 = _sha256(file)
    os.link(part, path)  # unlike a rename, it replaces nothing
    part.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return sha256


def read_archive(path: Path, root: Path) -> BackupManifest:
    """Unpack an archive into a folder and check every file on the way.

    Args:
        path: The archive.
        root: An empty folder.

    Raises:
        BackupError: If it cannot be read, is damaged, or holds what no backup holds.
    """
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            members = iter(archive)
            manifest = _manifest(archive, next(members, None), path)
            missing = set(manifest.files)
            for member in members:
                if member.name not in missing:
                    raise BackupError(
                        f"archive {str(path)!r} holds {member.name!r:.120}, which its manifest does not list"
                    )
                missing.remove(member.name)
                _unpack(archive, member, manifest.files[member.name], root, path)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BackupError(
            f"archive {str(path)!r} is damaged or cut off ({error}): use another one"
        ) from error
    except OSError as error:
        what = error.strerror or str(error)
        raise BackupError(f"archive {str(path)!r} cannot be unpacked into {str(root)!r}: {what}") from error
    if missing:
        raise BackupError(f"archive {str(path)!r} is cut off: {min(missing)!r} is missing; use another one")
    return manifest


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return _sha256(file)


def _manifest(archive: tarfile.TarFile, member: tarfile.TarInfo | None, path: Path) -> BackupManifest:
    if member is None or member.name != MANIFEST or not member.isreg() or member.size > _LARGEST_MANIFEST:
        raise BackupError(f"{str(path)!r} is no backup of Watchkeeper: it does not begin with {MANIFEST!r}")
    stream = archive.extractfile(member)
    assert stream is not None
    try:
        content = json.loads(stream.read())
        if isinstance(content, dict) and content.get("format") != FORMAT:
            raise BackupError(
                f"archive {str(path)!r} has format {content.get('format')!r}, this Watchkeeper knows "
                f"{FORMAT}: restore it with the release that made it"
            )
        return BackupManifest.model_validate(content)
    except (ValueError, ValidationError) as error:
        raise BackupError(f"archive {str(path)!r} is damaged: its manifest cannot be read") from error


def _unpack(
    archive: tarfile.TarFile, member: tarfile.TarInfo, expected: BackedUpFile, root: Path, path: Path
) -> None:
    parts = PurePosixPath(member.name).parts
    outside = not parts or parts[0] not in {HOME, ELSEWHERE} or ".." in parts or not member.isreg()
    if outside:
        raise BackupError(f"archive {str(path)!r} holds {member.name!r:.120}, which no backup holds")
    stream = archive.extractfile(member)
    assert stream is not None
    target = root.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for block in _blocks(stream):
            digest.update(block)
            size += len(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if (size, digest.hexdigest()) != (expected.size, expected.sha256):
        raise BackupError(
            f"archive {str(path)!r} is damaged: {member.name!r} is not what was backed up; use another one"
        )
    if os.geteuid() == 0:
        os.chown(target, member.uid, member.gid)
    target.chmod(expected.mode & 0o777)
    os.utime(target, (member.mtime, member.mtime))


def _digest(path: Path) -> BackedUpFile:
    found = path.stat()
    return BackedUpFile(size=found.st_size, sha256=digest_of(path), mode=stat.S_IMODE(found.st_mode))


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for block in _blocks(file):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block
