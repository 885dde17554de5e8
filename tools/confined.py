"""This machine as facts reach it: their commands run in the sandbox, for a time, and print so much."""

from __future__ import annotations

import errno
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.host import CommandResult, Host, LocalHost
from watchkeeper.tools.sandbox import ENVIRONMENT, PATH, Sandbox, find_sandbox

OUTPUT_BYTES = 1 << 20
"""What a command may print, in bytes; it is ended when it prints more, and its result says so."""

ERROR_BYTES = 1 << 16
"""The same for what it prints as errors."""

_CHUNK = 1 << 16
_PAUSE = 0.002


class ConfinedHost:
    """This machine, read through a sandbox.

    Args:
        name: Name in the inventory.
        sandbox: What holds the commands.
        network: Whether they may use the network.
    """

    is_local = True

    def __init__(self, name: str, sandbox: Sandbox, *, network: bool) -> None:
        self.name = name
        self.was_cut = False
        """Whether any command printed more than it may."""
        self._sandbox = sandbox
        self._network = network

    @classmethod
    def around(cls, host: Host, *, network: bool) -> Host:
        """Confine a host if it is this machine reached in the plain way; others stay as they are."""
        if type(host) is not LocalHost:
            return host
        return cls(host.name, find_sandbox(), network=network)

    def run(self, command: Sequence[str], *, timeout: float = 30.0, stdin: str = "") -> CommandResult:
        """Run a command in the sandbox; what it prints beyond the limit is cut, and the result says so.

        Raises:
            CollectError: If the program is missing, cannot be run, or did not end in time; whatever it
                had started is ended then.
        """
        self._require_program(command[0])
        line = self._sandbox.around(command, network=self._network, seconds=timeout)
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode())
            given.seek(0)
            try:
                process = subprocess.Popen(
                    line,
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                raise CollectError(
                    f"program {command[0]!r} cannot be run on host {self.name!r}: {error.strerror}"
                ) from error
        try:
            printed, complained, cut = _read(process, time.monotonic() + timeout)
        except TimeoutError as error:
            raise CollectError(
                f"{command[0]!r} on host {self.name!r} did not end within {timeout:g} s"
            ) from error
        finally:
            _end(process)
        self.was_cut = self.was_cut or cut
        return CommandResult(process.returncode, _text(printed), _text(complained), cut=cut)

    def _require_program(self, program: str) -> None:
        # Within the sandbox it would be a helper that does not find it.
        if shutil.which(program, path=PATH) is not None:
            return
        if Path(program).is_absolute() and Path(program).exists():
            raise CollectError(
                f"program {program!r} cannot be run on host {self.name!r}: {os.strerror(errno.EACCES)}"
            )
        raise CollectError(f"program {program!r} is not installed on host {self.name!r}")


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, bool]:
    """Read both outputs until they end, the limit, or the deadline.

    Raises:
        TimeoutError: At the deadline.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    kept: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    limits = {process.stdout: OUTPUT_BYTES, process.stderr: ERROR_BYTES}
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _ in selector.select(left):
                stream = next(stream for stream in kept if stream is key.fileobj)
                chunk = os.read(stream.fileno(), _CHUNK)
                if not chunk:
                    selector.unregister(stream)
                kept[stream] += chunk
                if len(kept[stream]) > limits[stream]:
                    printed, complained = (bytes(kept[s][: limits[s]]) for s in kept)
                    return printed, complained, True
    # Not reaped yet, so that its process group still is its own when what is left of it is ended.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= deadline:
            raise TimeoutError
        time.sleep(_PAUSE)
    printed, complained = (bytes(part) for part in kept.values())
    return printed, complained, False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started; nothing if all of it has ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace").replace("\r\n", "\n")
