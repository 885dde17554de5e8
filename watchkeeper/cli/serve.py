"""`watchkeeper serve`: a worker that does what was submitted."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from watchkeeper.runtime.events import Event


def serve(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Incidents that are worked on at a time.")] = 2,
    training: Annotated[
        int, typer.Option(min=0, max=64, help="Training jobs at a time; 0 leaves them to other workers.")
    ] = 1,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is to be done now.")] = False,
    inventory: Annotated[Path | None, typer.Option(help="The hosts that may be touched (YAML).")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="What may be done (YAML); default: ask about everything.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Id of a model, a folder, or http://host:port/v1#model.")
    ] = None,
    quantization: Annotated[str | None, typer.Option(help="auto, nf4, int8 or none.")] = None,
    lease: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds until others take over what a dead worker did.")
    ] = 30,
) -> None:
    """Work on what was submitted, until Ctrl-C; other workers, here or elsewhere, share the work.

    An incident that waits for an answer of people keeps no worker: the answer has one go on with it. It ends
    with code 130 after Ctrl-C and 0 after a polite kill (SIGTERM), and gives back what was under way.
    """
    from watchkeeper.cli.identity import given_token, permitted_person
    from watchkeeper.cli.jobs_work import beside, training_worker
    from watchkeeper.cli.models import ensure_pulled
    from watchkeeper.cli.output import INTERRUPTED, stderr_console
    from watchkeeper.cli.records import mistakes
    from watchkeeper.cli.run import lazy_engine, say_what_sandbox_is_missing
    from watchkeeper.cli.terminal import Terminal
    from watchkeeper.runtime.policy import Policy
    from watchkeeper.runtime.roles import Permission
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.tools.inventory import Inventory
    from watchkeeper.tools.plugins import load_registry

    console = stderr_console()
    with mistakes(), contextlib.ExitStack() as stack:
        settings = load_settings(inventory=inventory, policy=policy, model=model, quantization=quantization)
        person = permitted_person(settings.home, Permission.SERVE, "serve what others submit")
        engine = lazy_engine(console, settings)
        stack.callback(engine.close)
        hosts, registry = (
            Inventory.load(settings.inventory_path),
            load_registry(settings.tools, settings.log_predictor),
        )
        path = settings.policy_path
        rules = Policy.load(path, registry) if path else Policy.default(registry)
        from watchkeeper.runtime.good_configs import keeping
        from watchkeeper.runtime.incident_jobs import RUN, IncidentRuns
        from watchkeeper.runtime.jobs import Jobs
        from watchkeeper.runtime.orchestrator import Orchestrator
        from watchkeeper.runtime.worker import Worker

        orchestrator = stack.enter_context(
            Orchestrator(
                inventory=hosts,
                engine=engine,
                policy=rules,
                settings=settings,
                token=given_token(ask=False),
                lease_seconds=lease,
                terminal=Terminal(console).call,
            )
        )
        journal = orchestrator.journal
        journal.halts.check()
        say_what_sandbox_is_missing(console)
        ensure_pulled(settings.model, console)

        def say(text: str) -> None:
            console.print(text, style="yellow", highlight=False, markup=False)

        if settings.observe_only:
            say("this worker only observes: it calls nobody, and leaves calls that are due to other workers")
        runs = IncidentRuns(orchestrator, show=_shower(console), say=say)
        runs.sweep()
        keep_configs = keeping(orchestrator.site)

        def idle() -> None:
            runs.sweep()
            keep_configs()

        worker = Worker(
            Jobs(journal.store),
            journal.halts,
            {RUN: runs, **({} if settings.observe_only else orchestrator.escalation_jobs.tasks())},
            lease_seconds=lease,
            say=say,
            idle=idle,
        )
        trains = training_worker(journal, settings, hosts, console, lease=lease)
        journal.audit.append(
            "worker-started",
            {"worker": worker.name, "by": person.name, "known_by": person.proof.value, "workers": workers},
        )
        if not once:
            engine.preload()
            console.print(f"{worker.name} works on what is submitted; Ctrl-C stops it", highlight=False)
        with (
            beside(trains, threads=training, once=once) as stop_training,
            stopped_by_signals(worker.stop, stop_training) as came,
        ):
            worker.run(threads=workers, once=once)
    if came:
        console.print("stopped; what was under way goes on where a worker is", highlight=False)
    if signal.SIGINT in came:
        raise typer.Exit(INTERRUPTED)


def _shower(console: Console) -> Callable[[Event], object]:
    from watchkeeper.runtime.wording import describe_event, visible

    def show(event: Event) -> None:
        line = visible(describe_event(event))
        if line:
            console.print(f"{event.incident_id} {line}", highlight=False, markup=False)

    return show


@contextlib.contextmanager
def stopped_by_signals(*stops: Callable[[], object]) -> Iterator[list[int]]:
    """Have Ctrl-C and a polite kill stop workers; yields the signals that came."""
    came: list[int] = []

    def handle(number: int, frame: object) -> None:
        del frame
        came.append(number)
        for stop in stops:
            stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
