"""Workers as processes of their own, on one store and one lamp, for tests that kill and stop them.

Run as a program it is one worker: ``python -m tests.fleet HOME WORLD LEASE SECONDS``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.lamp import ALLOW, Lamp, orchestrator, prefers
from watchkeeper import ScriptedEngine
from watchkeeper.models.interface import Engine
from watchkeeper.runtime.errors import HaltedError
from watchkeeper.runtime.incident_jobs import RUN, IncidentRuns
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.worker import Worker
from watchkeeper.tools.host import Target

ROOT = Path(__file__).parent.parent
HALTED = 5


def start(home: Path, world: Path, *, lease: float, seconds: float = 0) -> subprocess.Popen[str]:
    """Start a worker; it says ``ready`` on standard output, then every event, and at last when it halted.

    An effect waits while there is a file ``slow`` in the world, and leaves a file ``begun``.

    Args:
        home: Folder of Watchkeeper's state.
        world: Folder of the lamp.
        lease: Seconds until others may take over what it does, if it goes silent.
        seconds: How long each answer of its model takes.
    """
    command = [sys.executable, "-m", "tests.fleet", str(home), str(world), str(lease), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Work until everything is stopped, or this process is killed."""
    home, world = Path(sys.argv[1]), Path(sys.argv[2])
    lease, seconds = float(sys.argv[3]), float(sys.argv[4])
    engine: Engine = ScriptedEngine(seconds=seconds) if seconds else prefers("bulb")
    lamp = Lamp(world)
    change = lamp.change

    def slowly(target: Target, who: str, part: str, value: str) -> None:
        """Change a part, but only once the file ``slow`` is gone."""
        (world / "begun").touch()
        while (world / "slow").exists():
            time.sleep(0.02)
        change(target, who, part, value)

    lamp.change = slowly  # type: ignore[method-assign]
    with orchestrator(home, lamp, engine, rules=ALLOW, lease_seconds=lease) as o:
        runs = IncidentRuns(o, show=lambda event: print(event.kind, flush=True))
        print("ready", flush=True)
        try:
            Worker(Jobs(o.journal.store), o.journal.halts, {RUN: runs}, lease_seconds=lease).run()
        except HaltedError:
            print(f"halted {time.monotonic()}", flush=True)
            sys.exit(HALTED)


if __name__ == "__main__":
    main()
