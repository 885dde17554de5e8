"""Files that survive a crash at any moment: written beside, synced, and renamed into place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class FileMeta:
    """Permissions, owner and times of a file."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileMeta:
        """Take them from a ``stat`` result."""
        return cls(status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime_ns)


def folder_name(key: str) -> str:
    """Turn a key into a name that is safe as a folder: itself if it is plain, else its SHA-256."""
    return key if _SAFE_NAME.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()


def private_folder(path: Path) -> Path:
    """Make a folder that only this user may enter, parents included; return it.

    Raises:
        PermissionError: If it exists and belongs to someone else, or is a symbolic link: in a folder that
            all may write to, someone could have laid it out to be written through.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if path.is_symlink() or not path.is_dir() or status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "is not a folder of this user's own", str(path))
    path.chmod(0o700)
    return path


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(
    path: Path, content: bytes, *, meta: FileMeta | None = None, like: Path | None = None
) -> None:
    """Replace a file in one step: after a crash it has either its old content or the new.

    Args:
        path: The file; its folder must exist.
        content: All of it.
        meta: Permissions and owner (default: 0600, this user); its times are left alone.
        like: A file whose extended attributes (SELinux label, ACL) are copied where the system lets us.

    Raises:
        OSError: If it cannot be written (nothing is left behind, and the old file is untouched).
    """
    beside = temporary_of(path)
    beside.unlink(missing_ok=True)
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            if meta is not None:
                os.fchown(handle, meta.uid, meta.gid)
                os.fchmod(handle, meta.mode)
            if like is not None:
                _copy_attributes(like, handle)
            os.fsync(handle)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def temporary_of(path: Path) -> Path:
    """Return the name under which a file is written before it is renamed into place."""
    return path.with_name(f".{path.name}.watchkeeper-new")


def read_stable(path: Path, *, limit: int) -> tuple[bytes, os.stat_result] | None:
    """Read a regular file that nobody is writing at this moment, with its ``stat``; None if it is missing.

    Raises:
        OSError: If it cannot be read, is not a regular file (a symbolic link is not), is larger than
            ``limit`` bytes, or changed while it was read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a symbolic link", str(path)) from error
        raise
    with os.fdopen(handle, "rb") as stream:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        if before.st_size > limit:
            raise OSError(errno.EFBIG, f"has {before.st_size} bytes, more than {limit}", str(path))
        content = stream.read(limit + 1)
        after = os.fstat(handle)
    if len(content) != before.st_size or before.st_mtime_ns != after.st_mtime_ns:
        raise OSError(errno.EAGAIN, "changed while it was read", str(path))
    return content, after


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _copy_attributes(source: Path, handle: int) -> None:
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            os.setxattr(handle, name, os.getxattr(source, name, follow_symlinks=False))
