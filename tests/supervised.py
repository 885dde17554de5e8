"""A real supervisord with programs of a test's own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SLEEPER = "import time; time.sleep(600)"


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until something is so; fail where it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def supervising(folder: Path, programs: Mapping[str, tuple[str, str]]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a supervisord, whose socket is ``s.sock`` in its folder, until the block ends.

    Args:
        folder: Where it lives: a short path, for that of a UNIX socket may have 107 bytes.
        programs: Python scripts and further lines of their sections, by name.
    """
    sections = [
        f"[unix_http_server]\nfile={folder}/s.sock\n",
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/supervisord.log",
        f"pidfile={folder}/supervisord.pid\nchildlogdir={folder}\n",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
        f"[program:missing]\ncommand={folder}/no-such-program\nautostart=false\n",
    ]
    for name, (script, options) in programs.items():
        (folder / f"{name}.py").write_text(script)
        sections.append(f"[program:{name}]\ncommand={sys.executable} {folder}/{name}.py\n{options}\n")
    (folder / "supervisord.conf").write_text("\n".join(sections))
    command = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-n", "-c"]
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [*command, str(folder / "supervisord.conf")], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        wait_for((folder / "s.sock").exists)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
