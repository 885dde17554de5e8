"""Folders on the way to a file, entered without being led astray by whoever may write in one of them.

A service may own its folders, and whoever runs it can lay a link there that leads to the files of others. To
name a file below such a link, and have it changed by a process that may do more, would be a way to change
what that user may not (CWE-59). So a link that another user made is followed to folders of that user alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOST_LINKS = 40  # as many as the kernel follows (path_resolution(7))
_ENTER = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class LedAstrayError(PermissionError):
    """A link of another user leads to what is not that user's."""


@contextmanager
def entered(folder: Path) -> Iterator[int]:
    """Enter a folder; what is opened relative to the descriptor is in that very folder, whatever changes.

    Links that root or this user made are followed. Those of others are followed only if the folder that they
    lead to belongs to whoever made them.

    Yields:
        A descriptor for ``dir_fd``, good until the block ends.

    Raises:
        LedAstrayError: If a link of another user leads to a folder that is not that user's.
        OSError: If it cannot be entered.
    """
    handle, strangers = _walk(folder.absolute())
    try:
        status = os.fstat(handle)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        for link, owner in strangers:
            if owner != status.st_uid:
                raise LedAstrayError(
                    errno.EPERM,
                    f"the link {link!r} of another user leads to a folder that is not that user's",
                    str(folder),
                )
        yield handle
    finally:
        os.close(handle)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file in a folder that is entered so, never through a link of its own name, never waiting.

    Raises:
        LedAstrayError: As ``entered`` does.
        OSError: If it cannot be opened; with ``ELOOP`` if it is a symbolic link.
    """
    with entered(path.parent) as folder:
        handle = os.open(path.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


def path_of(handle: int) -> str:
    """Return where an open file is now, as the kernel knows it: without links, and not to be mistaken."""
    return str(Path(f"/proc/self/fd/{handle}").readlink())


def _walk(folder: Path) -> tuple[int, list[tuple[str, int]]]:
    """Go down one part at a time; return the last folder, and the links of others with their owners."""
    trusted = {0, os.geteuid()}
    waiting = [part for part in reversed(folder.parts) if part != "/"]
    strangers: list[tuple[str, int]] = []
    links = 0
    current = os.open("/", _ENTER)
    try:
        while waiting:
            part = waiting.pop()
            following = os.open(part, _ENTER, dir_fd=current)
            status = os.fstat(following)
            if not stat.S_ISLNK(status.st_mode):
                os.close(current)
                current = following
                continue
            try:
                leads_to = os.readlink("", dir_fd=following)
            finally:
                os.close(following)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
            if status.st_uid not in trusted:
                strangers.append((f"{path_of(current).rstrip('/')}/{part}", status.st_uid))
            if leads_to.startswith("/"):
                root = os.open("/", _ENTER)
                os.close(current)
                current = root
            waiting += [step for step in reversed(leads_to.split("/")) if step not in ("", ".")]
    except BaseException:
        os.close(current)
        raise
    return current, strangers
