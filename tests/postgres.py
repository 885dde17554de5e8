"""A PostgreSQL server for tests, in a temporary folder, on a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OFF = ("fsync=off", "full_page_writes=off", "listen_addresses=")


def binaries() -> Path | None:
    """Folder of the newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def running_server() -> Iterator[str]:
    """Run a server and yield the URL of its folder's socket, without a database."""
    folder = binaries()
    assert folder is not None, "PostgreSQL is not installed: `make parts` says why it cannot be"
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    root = Path(tempfile.mkdtemp(prefix="wk-pg-"))
    if os.geteuid() == 0:
        shutil.chown(root, user)
    as_user = {"user": user} if os.geteuid() == 0 else {}

    def call(*command: str | Path) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=root, stdin=subprocess.DEVNULL, **as_user
        )  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        call(
            folder / "initdb",
            "-D",
            root / "data",
            "-U",
            "watchkeeper",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
        )
        options = " ".join(f"-c {option}" for option in (*OFF, f"unix_socket_directories={root}"))
        call(folder / "pg_ctl", "-D", root / "data", "-w", "-l", root / "log", "-o", options, "start")
        try:
            yield f"postgresql://watchkeeper@/{{}}?host={root}"
        finally:
            call(folder / "pg_ctl", "-D", root / "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)
