"""The servers of predictors that run on this machine: where they are, and which versions answer there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.tools.durable import private_folder, write_durably
from watchkeeper.tools.errors import VersionError

LOAD_SECONDS = 120.0
"""How long a version may load before its promotion is taken back, unless the server says otherwise."""

_FOLDER = "servers"
_TIMEOUT = 5.0
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A server of this machine is asked through no proxy."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says of an alias of a predictor.

    Attributes:
        version: The version that answers; None for none.
        failed: The version that cannot be loaded; None for none.
        loading: Whether a version is being loaded for this alias.
        busy: Whether any version is being loaded there that did not fail before.
    """

    version: int | None
    failed: int | None
    loading: bool
    busy: bool


class RunningServer(BaseModel):
    """A server that says where it is.

    Attributes:
        address: Its address, without a path.
        machine: The machine that it runs on.
        pid: Its process.
        started: When that was started, as the system counts it: another process may have the number later.
        names: The predictors that it serves; all of them where empty.
        load_seconds: How long a version may load there before its promotion is taken back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    machine: str
    pid: int
    started: float
    names: tuple[str, ...] = ()
    load_seconds: float = LOAD_SECONDS

    @property
    def alive(self) -> bool:
        """Whether its process is still there."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
        except psutil.Error:
            return False

    def serves(self, name: str) -> bool:
        """Whether it answers for a predictor."""
        return not self.names or name in self.names

    def ask(self, name: str, alias: str) -> Served:
        """Ask it what an alias of a predictor names there.

        Raises:
            VersionError: If it does not answer.
        """
        try:
            with _DIRECTLY.open(f"{self.address}/health", timeout=_TIMEOUT) as answer:
                said = json.loads(answer.read(1 << 20))
            answering, loading, failed = (said[part] for part in ("predictors", "loading", "failed"))
            return Served(
                version=answering.get(name, {}).get(alias),
                failed=failed.get(name, {}).get(alias),
                loading=alias in loading.get(name, {}),
                busy=any(
                    number != failed.get(other, {}).get(its)
                    for other, numbers in loading.items()
                    for its, number in numbers.items()
                ),
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise VersionError(f"the server at {self.address} does not answer: {error}") from error


def running_servers(folder: Path) -> tuple[RunningServer, ...]:
    """Return the servers that answer with the versions of a folder on this machine.

    The files of processes that ended without a word are removed.
    """
    found = []
    for path in sorted((folder / _FOLDER).glob("*.json")):
        try:
            server = RunningServer.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        # Of another machine that shares the folder nobody here knows which processes it has.
        if server.machine != platform.node():
            continue
        if server.alive:
            found.append(server)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    return tuple(found)


@contextlib.contextmanager
def announced(
    folder: Path, address: str, *, names: tuple[str, ...] = (), load_seconds: float = LOAD_SECONDS
) -> Iterator[None]:
    """Say where the server of this process is, while the block runs.

    Args:
        folder: That of the versions.
        address: Its address, without a path.
        names: The predictors that it serves; all of them where empty.
        load_seconds: How long a version may load there before its promotion is taken back.

    Raises:
        OSError: If that cannot be written.
    """
    pid = os.getpid()
    server = RunningServer(
        address=address,
        machine=platform.node(),
        pid=pid,
        started=psutil.Process(pid).create_time(),
        names=names,
        load_seconds=load_seconds,
    )
    path = private_folder(folder / _FOLDER) / f"{server.machine}-{pid}.json"
    write_durably(path, server.model_dump_json().encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
