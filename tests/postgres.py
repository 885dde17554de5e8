"""A PostgreSQL server for tests, in a temporary folder, on a Unix socket."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from watchkeeper.runtime.store import Store

OFF = ("fsync=off", "full_page_writes=off", "listen_addresses=", "max_connections=200")
_TEMPLATE = "ready"


def binaries() -> Path | None:
    """Folder of the newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Server:
    """A server that runs.

    Args:
        folder: Where its socket is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._ready = False

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://watchkeeper@/{name}?host={self._folder}"

    def new_database(self, *, empty: bool = False) -> str:
        """Make a database and return its URL.

        Args:
            empty: Without any tables: they are made when it is opened.
        """
        if not empty and not self._ready:
            self.do(f"CREATE DATABASE {_TEMPLATE}")
            Store(self.url(_TEMPLATE)).close()
            self._ready = True
        name = f"w{next(self._numbers)}"
        how = "" if empty else f" TEMPLATE {_TEMPLATE} STRATEGY file_copy"
        self.do(f"CREATE DATABASE {name}{how}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        name = url.partition("?")[0].rpartition("/")[2]
        self.do(f"DROP DATABASE {name} WITH (FORCE)")

    def do(self, statement: str) -> None:
        """Execute a statement as the superuser, outside of any transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def running_server() -> Iterator[Server]:
    """Run a server until the block ends; it sorts texts as people in the US do, not by their bytes."""
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
            *(folder / "initdb", "-D", root / "data", "-U", "watchkeeper", "-A", "trust", "--no-sync"),
            *("-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"),
        )
        options = " ".join(f"-c {option}" for option in (*OFF, f"unix_socket_directories={root}"))
        call(folder / "pg_ctl", "-D", root / "data", "-w", "-l", root / "log", "-o", options, "start")
        try:
            yield Server(root)
        finally:
            call(folder / "pg_ctl", "-D", root / "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)
