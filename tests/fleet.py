"""Workers as processes of their own, on one store and one lamp, for tests that kill and stop them.

Run as a program it is one worker: ``python -m tests.fleet HOME WORLD LEASE SECONDS [STORE]``.
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


def start(
    home: Path, world: Path, *, lease: float, seconds: float = 0, store: str | None = None
) -> subprocess.Popen[str]:
    """Start a worker; it says ``ready`` on standard output, then every event, and at last when it halted.

    While there is a file ``slow`` in the world an effect waits before it is done, and leaves ``begun``;
    while there is one ``slow-after`` it waits after it was done, and leaves ``changed``.

    Args:
        home: Folder of Watchkeeper's state.
        world: Folder of the lamp.
        lease: Seconds until others may take over what it does, if it goes silent.
        seconds: How long each answer of its model takes.
        store: Where the store is; by default in the home.
    """
    command = [sys.executable, "-m", "tests.fleet", str(home), str(world), str(lease), str(seconds)]
    if store is not None:
        command.append(store)
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Work until everything is stopped, or this process is killed."""
    home, world = Path(sys.argv[1]), Path(sys.argv[2])
    lease, seconds = float(sys.argv[3]), float(sys.argv[4])
    store = sys.argv[5] if len(sys.argv) > 5 else None
    engine: Engine = ScriptedEngine(seconds=seconds) if seconds else prefers("bulb")
    lamp = Lamp(world)
    change = lamp.change

    def slowly(target: Target, who: str, part: str, value: str) -> None:
        """Change a part, but only once the file ``slow`` is gone."""
        _wait(world, "begun", "slow")
        change(target, who, part, value)
        _wait(world, "changed", "slow-after")

    lamp.change = slowly  # type: ignore[method-assign]
    with orchestrator(home, lamp, engine, rules=ALLOW, lease_seconds=lease, store=store) as o:
        runs = IncidentRuns(o, show=lambda event: print(event.kind, flush=True))
        worker = Worker(
            Jobs(o.journal.store),
            o.journal.halts,
            {RUN: runs},
            lease_seconds=lease,
            say=lambda text: print(text, flush=True),
        )
        print("ready", flush=True)
        try:
            worker.run()
        except HaltedError:
            print(f"halted {time.monotonic()}", flush=True)
            sys.exit(HALTED)


def _wait(world: Path, leaves: str, while_there: str) -> None:
    (world / leaves).touch()
    while (world / while_there).exists():
        time.sleep(0.02)


if __name__ == "__main__":
    main()
