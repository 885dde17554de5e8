"""A small file system of its own for the demo's data, with or without the rights of root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from watchkeeper.demo.errors import MountError

_CAP_SYS_ADMIN = 21
_ENTERED = "WATCHKEEPER_DEMO_NAMESPACE"


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def needs_namespace() -> bool:
    """Whether mounting needs a user namespace, and this machine lets us have one."""
    if can_mount() or _ENTERED in os.environ or shutil.which("unshare") is None:
        return False
    probe = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True, check=False
    )
    return probe.returncode == 0


def reexec_in_namespace(*, joining: int | None = None, command: Sequence[str] | None = None) -> NoReturn:
    """Start this program again where it may mount; does not return.

    Args:
        joining: Id of a process whose namespaces to enter, so as to see what is mounted there; a new
            namespace otherwise.
        command: What to start (default: this program with its arguments).
    """
    again = list(command) if command is not None else [sys.executable, *sys.orig_argv[1:]]
    if joining is None:
        prefix = ["unshare", "--user", "--map-root-user", "--mount", "--"]
    else:
        prefix = ["nsenter", "--user", "--mount", "--preserve-credentials", f"--target={joining}", "--"]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(prefix[0], [*prefix, *again], {**os.environ, _ENTERED: "1"})  # noqa: S606 (no shell wanted)


def other_namespace(pid: int) -> bool:
    """Whether a process lives in another mount namespace than this one."""
    try:
        return Path(f"/proc/{pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
    except OSError:
        return False


def mount_small(folder: Path, size: int) -> None:
    """Mount an empty file system in memory on a folder.

    Args:
        folder: Where; it must exist.
        size: Its size in bytes.

    Raises:
        MountError: If the system refuses.
    """
    _run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755,nodev,nosuid", "tmpfs", str(folder)])


def mounts_below(folder: Path) -> list[Path]:
    """Return the mount points at or below a folder, the deepest first."""
    prefix = str(folder)
    found = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        point = line.split(" ")[1].encode().decode("unicode_escape")
        if point == prefix or point.startswith(prefix + "/"):
            found.append(Path(point))
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmount everything at or below a folder, busy or not.

    Raises:
        MountError: If the system refuses.
    """
    for point in mounts_below(folder):
        try:
            _run(["umount", str(point)])
        except MountError:
            _run(["umount", "--lazy", str(point)])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"{command[0]!r} could not be run: {error}") from error
    if done.returncode:
        raise MountError(f"{' '.join(command)!r} failed: {done.stderr.strip() or done.returncode}")
