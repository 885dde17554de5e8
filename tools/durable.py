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

from watchkeeper.tools.folders import opened

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


def leave_to_owner(made: int | Path, folder: Path) -> None:
    """Give what root just made in the folder of another account to that account; nothing for other users.

    Args:
        made: The open file, or the path of a folder. It must be new: whatever was there before may be a link
            that the account laid, to what it should not have.
        folder: The folder whose owner is to have it.
    """
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    if isinstance(made, int):
        os.fchown(made, owner.st_uid, owner.st_gid)
    else:
        os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=False)


def open_kept(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file, made where it is not there; one that root makes is the account's whose folder it is in.

    Raises:
        OSError: If it cannot be opened.
    """
    flags |= os.O_CLOEXEC
    while True:
        try:
            made = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                return os.open(path, flags)
        else:
            leave_to_owner(made, path.parent)
            return made


def make_kept_folder(path: Path) -> None:
    """Make a folder for its owner alone, where it is not there, as `open_kept` makes a file.

    Raises:
        OSError: If it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        leave_to_owner(path, path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(
    path: Path, content: bytes, *, meta: FileMeta | None = None, folder: int | None = None
) -> None:
    """Replace a file in one step: after a crash it has either its old content or the new.

    Args:
        path: The file; its folder must exist.
        content: All of it.
        meta: Permissions and owner of a file that others read too (default: 0600, this user); its times are
            left alone. Extended attributes (SELinux label, ACL) of the old file are copied then, where the
            system lets us.
        folder: Its folder, entered already (see ``watchkeeper.tools.folders``); by default as its path says.

    Raises:
        OSError: If it cannot be written (nothing is left behind, and the old file is untouched).
    """
    if folder is None:
        handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            write_durably(path, content, meta=meta, folder=handle)
        finally:
            os.close(handle)
        return
    beside = temporary_of(path).name
    remove_in(folder, beside)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(beside, flags, 0o600, dir_fd=folder)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            if meta is not None:
                os.fchown(handle, meta.uid, meta.gid)
                os.fchmod(handle, meta.mode)
                _copy_attributes(folder, path.name, handle)
            os.fsync(handle)
        os.replace(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        remove_in(folder, beside)
        raise
    sync_entered(folder)


def remove_in(folder: int, name: str) -> None:
    """Remove a file from a folder that was entered, if it is there.

    Raises:
        OSError: If it cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def sync_entered(folder: int) -> None:
    """Make the names in a folder that was entered durable."""
    handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_of(path: Path) -> Path:
    """Return the name under which a file is written before it is renamed into place."""
    return path.with_name(f".{path.name}.watchkeeper-new")


def read_stable(path: Path, *, limit: int) -> tuple[bytes, os.stat_result] | None:
    """Read a regular file that nobody is writing at this moment, with its ``stat``; None if it is missing.

    Raises:
        LedAstrayError: If a link that another user made leads to it, out of that user's folders.
        OSError: If it cannot be read, is not a regular file (a symbolic link is not), is larger than
            ``limit`` bytes, or changed while it was read.
    """
    try:
        with opened(path, os.O_RDONLY) as handle:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file", str(path))
            if before.st_size > limit:
                raise OSError(errno.EFBIG, f"has {before.st_size} bytes, more than {limit}", str(path))
            with os.fdopen(handle, "rb", closefd=False) as stream:
                content = stream.read(limit + 1)
            after = os.fstat(handle)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a symbolic link", str(path)) from error
        raise
    if len(content) != before.st_size or before.st_mtime_ns != after.st_mtime_ns:
        raise OSError(errno.EAGAIN, "changed while it was read", str(path))
    return content, after


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _copy_attributes(folder: int, name: str, handle: int) -> None:
    try:
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return
    try:
        for attribute in os.listxattr(source):
            with contextlib.suppress(OSError):
                os.setxattr(handle, attribute, os.getxattr(source, attribute))
    except OSError:
        return
    finally:
        os.close(source)
