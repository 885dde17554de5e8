"""The server of predictors that runs on this machine: where it is, and which version answers there."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.tools.durable import private_folder, write_durably
from watchkeeper.tools.errors import VersionError

_FILE = "server.json"
_TIMEOUT = 5.0


class RunningServer(BaseModel):
    """A server that says where it is.

    Attributes:
        address: Its address, without a path.
        pid: Its process.
        started: When that was started, as the system counts it: another process may have the number later.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    pid: int
    started: float

    @property
    def alive(self) -> bool:
        """Whether its process is still there."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
        except psutil.Error:
            return False

    def answering(self, name: str, alias: str) -> int | None:
        """Ask it which version an alias of a predictor names there; None for none.

        Raises:
            VersionError: If it does not answer.
        """
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=_TIMEOUT) as answer:  # noqa: S310
                said = json.loads(answer.read(1 << 20))
            number = said["predictors"].get(name, {}).get(alias)
        except (OSError, ValueError, KeyError, AttributeError, urllib.error.URLError) as error:
            raise VersionError(f"the server at {self.address} does not answer: {error}") from error
        return None if number is None else int(number)


def running_server(folder: Path) -> RunningServer | None:
    """Return the server that answers with the versions of a folder on this machine; None where none runs."""
    try:
        found = RunningServer.model_validate_json((folder / _FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.alive else None


@contextlib.contextmanager
def announced(folder: Path, address: str) -> Iterator[None]:
    """Say where the server of this process is, while the block runs.

    Raises:
        OSError: If that cannot be written.
    """
    pid = os.getpid()
    server = RunningServer(address=address, pid=pid, started=psutil.Process(pid).create_time())
    path = private_folder(folder) / _FILE
    write_durably(path, server.model_dump_json().encode())
    try:
        yield
    finally:
        if running_server(folder) == server:
            path.unlink(missing_ok=True)
