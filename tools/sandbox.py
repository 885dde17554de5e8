"""The sandbox that commands of facts run in: bubblewrap, tried once, and limits that hold without it too.

In it the file system is read-only, there is no network (unless the fact declares that it needs it), other
processes can be seen and not signalled, no privilege can be gained, and all that a command started ends
with it. What it does not hide: files that the account may read, and UNIX sockets with a path, which
``systemctl`` and others need (the threat model in design/).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"LC_ALL": "C", "PATH": PATH}
"""All that a command finds in its environment."""

MEMORY_BYTES = 2 << 30
"""Address space that one process of a command may take."""

FILE_BYTES = 16 << 20
"""Size of a file that it may write where it may write at all (its own ``/dev/shm``)."""

PROCESSES = 128
"""Processes that a command may have at a time; the kernel does not hold root to it."""

_TRY_SECONDS = 5.0
# What root keeps: to look at other users' files and processes, which is what a fact of root's is for.
_ROOT_KEEPS = ("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What this machine offers to hold a command.

    Attributes:
        bubblewrap: Path of ``bwrap`` where it works; empty where it does not.
        prlimit: Path of ``prlimit``; empty where it is not installed.
        missing: What is missing and what to do, in one line; empty where nothing is.
    """

    bubblewrap: str
    prlimit: str
    missing: str

    @property
    def note(self) -> str:
        """Say for people what holds the commands of facts."""
        if not self.missing:
            return "commands of facts run in a sandbox: read-only, no network, limited (bubblewrap)"
        return f"commands of facts run WITHOUT a full sandbox: {self.missing}"

    def around(self, command: Sequence[str], *, network: bool, seconds: float) -> list[str]:
        """Return the command line that runs a command within the sandbox.

        Args:
            command: Program and arguments.
            network: Whether it may use the network.
            seconds: Time that it is given, in seconds; processor time is limited to a little more.
        """
        line: list[str] = []
        if self.bubblewrap:
            line += [self.bubblewrap, "--ro-bind", "/", "/", "--dev", "/dev", "--chdir", "/"]
            line += ["--unshare-pid", "--unshare-ipc", "--die-with-parent", "--new-session"]
            line += [] if network else ["--unshare-net"]
            line += ["--cap-drop", "ALL"]
            if os.geteuid() == 0:
                line += [part for name in _ROOT_KEEPS for part in ("--cap-add", name)]
            line.append("--")
        if self.prlimit:
            line += [self.prlimit, f"--as={MEMORY_BYTES}", f"--fsize={FILE_BYTES}", "--core=0"]
            line.append(f"--cpu={int(seconds) + 2}")
            # Without a namespace of its own the count would include every thread of this account.
            line += [f"--nproc={PROCESSES}"] if self.bubblewrap else []
            line.append("--")
        return [*line, *command]


@lru_cache(maxsize=1)
def find_sandbox() -> Sandbox:
    """Find what this machine offers, by trying it once in the life of this process."""
    prlimit = shutil.which("prlimit", path=PATH) or ""
    bubblewrap = shutil.which("bwrap", path=PATH) or ""
    missing = [] if prlimit else ["prlimit is not installed (it is part of util-linux)"]
    if not bubblewrap:
        missing.insert(0, "bubblewrap is not installed: apt-get install bubblewrap")
    else:
        reason = _refusal(Sandbox(bubblewrap, "", ""))
        if reason:
            bubblewrap = ""
            missing.insert(0, f"bubblewrap does not work here ({reason}): allow user namespaces")
    return Sandbox(bubblewrap, prlimit, "; ".join(missing))


def _refusal(sandbox: Sandbox) -> str:
    """Say why an empty command cannot be run in it, or nothing."""
    try:
        done = subprocess.run(
            sandbox.around(["true"], network=False, seconds=_TRY_SECONDS),
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
            timeout=_TRY_SECONDS,
            env=ENVIRONMENT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)[:200]
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[:200] or f"status {done.returncode}"
