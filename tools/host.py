"""Hosts as tools reach them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.training.record import JobBoard


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command printed and how it ended.

    Attributes:
        status: Its exit status.
        stdout: What it printed.
        stderr: What it printed as errors.
        cut: Whether it was ended because it printed more than a fact's command may.
    """

    status: int
    stdout: str
    stderr: str
    cut: bool = False


class Host(Protocol):
    """A machine on which commands run; facts and actions reach it through this alone."""

    @property
    def name(self) -> str:
        """Name in the inventory."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether this process runs on it, so that files and processes can be looked at directly."""
        ...

    def run(self, command: Sequence[str], *, timeout: float = 30.0, stdin: str = "") -> CommandResult:
        """Run a command (never through a shell) and return what it printed.

        Raises:
            CollectError: If the program is missing or did not end in time.
        """
        ...


class LocalHost:
    """The machine on which this process runs; actions reach it like this, facts through a sandbox."""

    is_local = True

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, command: Sequence[str], *, timeout: float = 30.0, stdin: str = "") -> CommandResult:
        """Run a command and return what it printed.

        Raises:
            CollectError: If the program is missing, cannot be run, or did not end in time.
        """
        try:
            done = subprocess.run(
                list(command),
                input=stdin,
                capture_output=True,
                timeout=timeout,
                check=False,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        except FileNotFoundError as error:
            raise CollectError(f"program {command[0]!r} is not installed on host {self.name!r}") from error
        except OSError as error:
            raise CollectError(
                f"program {command[0]!r} cannot be run on host {self.name!r}: {error.strerror}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise CollectError(
                f"{command[0]!r} on host {self.name!r} did not end within {timeout:g} s"
            ) from error
        return CommandResult(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a tool works: a host, what the inventory says of it, and a folder for what must be kept.

    Attributes:
        host: The way to it.
        spec: Its labels and services.
        state: Folder of this host in Watchkeeper's state, for the quarantine and the last good
            versions of configuration files.
        jobs: Whoever keeps training jobs; None where nobody does.
    """

    host: Host
    spec: HostSpec
    state: Path
    jobs: JobBoard | None = None

    @property
    def home(self) -> Path:
        """Home of whoever looks at the host."""
        return self.state.parent.parent
