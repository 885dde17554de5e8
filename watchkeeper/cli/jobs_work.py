"""``watchkeeper jobs work``: a worker that trains, and the one that `watchkeeper serve` has beside it."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.identity import AskToken

if TYPE_CHECKING:
    from rich.console import Console

    from watchkeeper.runtime.journal import Journal
    from watchkeeper.runtime.settings import Settings
    from watchkeeper.runtime.worker import Worker
    from watchkeeper.tools.inventory import Inventory


def work(
    at_a_time: Annotated[
        int, typer.Option("--jobs", min=1, max=64, help="Jobs at a time, where there is room for them.")
    ] = 2,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is to be done now.")] = False,
    lease: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds until others take over what a dead worker did.")
    ] = 30,
    ask_token: AskToken = False,
) -> None:
    """Train what was submitted, until Ctrl-C; no language model is needed.

    `watchkeeper serve` trains, too; this is for machines that do nothing else.
    """
    from watchkeeper.cli.identity import permitted_person
    from watchkeeper.cli.output import INTERRUPTED, stderr_console
    from watchkeeper.cli.records import mistakes
    from watchkeeper.cli.serve import stopped_by_signals
    from watchkeeper.runtime.journal import Journal
    from watchkeeper.runtime.roles import Permission
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.tools.inventory import Inventory

    console = stderr_console()
    with mistakes():
        settings = load_settings()
        person = permitted_person(
            settings.home, Permission.SERVE, "train what others submit", ask_token=ask_token
        )
        hosts = Inventory.load(settings.inventory_path) if settings.inventory_path.exists() else None
        with Journal(settings.home, store=settings.store_place, solo=settings.solo) as journal:
            journal.halts.check()
            worker = training_worker(journal, settings, hosts, console, lease=lease)
            journal.audit.append(
                "worker-started",
                {
                    "worker": worker.name,
                    "by": person.name,
                    "known_by": person.proof.value,
                    "workers": at_a_time,
                },
            )
            if not once:
                console.print(f"{worker.name} trains what is submitted; Ctrl-C stops it", highlight=False)
            with stopped_by_signals(worker.stop) as came:
                worker.run(threads=at_a_time, once=once)
    if came:
        console.print("stopped; what was under way goes on where a worker is", highlight=False)
    if signal.SIGINT in came:
        raise typer.Exit(INTERRUPTED)


def training_worker(
    journal: Journal, settings: Settings, hosts: Inventory | None, console: Console, *, lease: float
) -> Worker:
    """Return a worker that trains; where an inventory names this machine, failures open incidents on it."""
    from watchkeeper.runtime.jobs import Jobs
    from watchkeeper.runtime.training_room import Room
    from watchkeeper.runtime.training_runs import TrainingRuns
    from watchkeeper.runtime.worker import Worker

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style or None, highlight=False, markup=False)

    host = None if hosts is None else _this_machine(hosts)
    if host is None:
        say("no host of the inventory is this machine: jobs that fail open no incident", "yellow")
    room = Room.of_this_machine(settings.training_memory)
    runs = TrainingRuns(journal, room, host=host, ray_address=settings.ray_address, show=say)
    runs.sweep()
    return Worker(
        Jobs(journal.store),
        journal.halts,
        runs.handlers(),
        lease_seconds=lease,
        say=lambda text: say(text, "yellow"),
        idle=runs.sweep,
    )


@contextlib.contextmanager
def beside(worker: Worker, *, threads: int, once: bool) -> Iterator[Callable[[], None]]:
    """Have a worker train in the background until the block ends; yields the way to stop it."""
    from watchkeeper.runtime.errors import HaltedError

    failed: list[Exception] = []

    def run() -> None:
        # Whoever runs the block is told of a halt, too.
        try:
            with contextlib.suppress(HaltedError):
                worker.run(threads=threads, once=once)
        except Exception as error:  # noqa: BLE001 (it is raised where the block ends)
            failed.append(error)

    if not threads:
        yield lambda: None
        return
    thread = threading.Thread(target=run, name="watchkeeper-training", daemon=True)
    thread.start()
    try:
        yield worker.stop
    except BaseException:
        worker.stop()
        raise
    finally:
        if not once:
            worker.stop()
        thread.join()
    if failed:
        raise failed[0]


def _this_machine(hosts: Inventory) -> str | None:
    local = [host.name for host in hosts if host.connection == "local"]
    name = socket.gethostname()
    return name if name in local else local[0] if local else None
