"""`watchkeeper run`: handle an alert, or go on with an incident that was cut off."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from watchkeeper.cli.terminal import Terminal
    from watchkeeper.models.interface import Engine
    from watchkeeper.models.lazy import LazyEngine
    from watchkeeper.runtime.approvals import Approval
    from watchkeeper.runtime.orchestrator import Orchestrator
    from watchkeeper.runtime.settings import Settings

AWAITING = 3
"""Exit code of a run that waits for an answer that nobody here can give."""

ESCALATED = 4
"""Exit code of an incident that was handed to people."""


def lazy_engine(console: Console, settings: Settings) -> LazyEngine:
    """Return an engine that loads its model when it is first asked.

    Raises:
        UnknownModelError: If there is no such model.
    """
    from watchkeeper.models import open_engine
    from watchkeeper.models.catalog import find_model
    from watchkeeper.models.endpoint import Endpoint, is_endpoint
    from watchkeeper.models.lazy import LazyEngine
    from watchkeeper.models.remote import RemoteEngine

    if is_endpoint(settings.model):
        Endpoint.parse(settings.model)
    else:
        find_model(settings.model)

    def opening() -> Engine:
        started = time.monotonic()
        if not is_endpoint(settings.model):
            console.print(f"loading model {settings.model} ...", style="dim", markup=False)
        engine = open_engine(settings.model, settings.quantization, adapters=settings.adapters)
        if isinstance(engine, RemoteEngine):
            engine.connect()
        identity = engine.identity
        seconds = time.monotonic() - started
        said = f"model {identity.id} ({identity.quantization}) loaded in {seconds:.1f} s"
        console.print(said, style="dim", markup=False)
        return engine

    return LazyEngine(opening, adapters=settings.adapters)


def answerer_of(approve: str, terminal: Terminal) -> Callable[[Orchestrator, Approval], None]:
    """Return what answers questions: ``ask`` (the terminal, else nobody), ``yes`` or ``no``."""
    from watchkeeper.cli.ask import FixedAnswerer, TerminalAnswerer, nobody

    if approve == "ask":
        return TerminalAnswerer(terminal) if sys.stdin.isatty() else nobody
    return FixedAnswerer(approve=approve == "yes", reason=f"--approve {approve}")


def handle(
    orchestrator: Orchestrator,
    incident_id: str,
    terminal: Terminal,
    *,
    approve: str,
    wait: bool,
    again: str = "watchkeeper run",
) -> None:
    """Run an incident to its end or to a question that waits, and show it; ``again`` goes on after Ctrl-C."""
    from watchkeeper.cli.ask import TerminalAnswerer
    from watchkeeper.cli.view import EventView
    from watchkeeper.runtime.events import ApprovalRequested, IncidentOpened

    console = terminal.console
    answerer = answerer_of(approve, terminal)
    # Who is asked here is waited for: an answer that nobody goes on with would be none.
    wait = wait or isinstance(answerer, TerminalAnswerer)
    view = EventView(console)
    known = orchestrator.journal.incidents.events(incident_id)
    before = known[-1].seq if any(not isinstance(event, IncidentOpened) for event in known) else 0
    if before:
        console.print("so far:", style="dim")
    try:
        for event in orchestrator.resume(incident_id, wait=wait):
            if 0 < before < event.seq:
                console.print("now:", style="dim")
                before = 0
            view.show(event)
            if isinstance(event, ApprovalRequested):
                answerer(orchestrator, orchestrator.journal.approvals.get(event.approval_id))
    except KeyboardInterrupt:
        say_who_makes_the_next_call(orchestrator, incident_id, console)
        console.print(f"\nstopped; go on with: {again} --resume {incident_id}")
        raise typer.Exit(130) from None
    say_who_makes_the_next_call(orchestrator, incident_id, console)


def keep_options(settings: Settings, incident_id: str) -> None:
    """Keep what an incident is run with; one that the alert joined keeps what it was begun with.

    Raises:
        ConfigurationError: If it was begun only to observe, and this run would act.
    """
    from watchkeeper.runtime.errors import ConfigurationError
    from watchkeeper.runtime.runs import RunFile

    before = RunFile.read(settings.home, incident_id)
    if before is None:
        RunFile.of(settings).write(settings.home, incident_id)
    elif before.observe_only and not settings.observe_only:
        raise ConfigurationError(
            f"this alert is that of {incident_id}, which was begun only to observe and stays so: "
            f"`watchkeeper run --resume {incident_id}` brings it to its end, and the next one may act"
        )


def say_who_makes_the_next_call(orchestrator: Orchestrator, incident_id: str, console: Console) -> None:
    """Say that people are called on by a process alone, and this one ends."""
    from watchkeeper.runtime.escalation_states import EscalationStatus

    for one in orchestrator.journal.escalations.list(live=True, incident_id=incident_id):
        if one.status is EscalationStatus.WAITING and one.due_at is not None and not one.held_since:
            console.print(
                f"{one.id}: the next call at {one.due_at:%Y-%m-%d %H:%M:%S} UTC is made by "
                "`watchkeeper serve` or the next run, and by nobody else",
                style="yellow",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def say_what_sandbox_is_missing(console: Console) -> None:
    """Say once where commands of facts are not held as they should be."""
    from watchkeeper.tools.sandbox import find_sandbox

    sandbox = find_sandbox()
    if sandbox.missing:
        console.print(sandbox.note, style="yellow", highlight=False, markup=False, soft_wrap=True)


def say_what_solo_cannot_change(orchestrator: Orchestrator, incident_id: str, console: Console) -> None:
    """A question that waits for another person goes on waiting for one, whoever says now to work alone."""
    from watchkeeper.runtime.approvals import ApprovalStatus

    for asked in orchestrator.journal.approvals.list(incident_id=incident_id, status=ApprovalStatus.PENDING):
        if not asked.solo:
            console.print(
                f"{asked.id} was asked without --solo: {asked.requester!r} may not approve it; what is asked "
                "from now on is asked with it",
                style="yellow",
                highlight=False,
                markup=False,
            )


def run(
    alert: Annotated[
        Path | None, typer.Argument(metavar="ALERT.yaml", help="The alert to handle.", show_default=False)
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="INCIDENT", help="Go on with an incident that was cut off.")
    ] = None,
    inventory: Annotated[Path | None, typer.Option(help="The hosts that may be touched (YAML).")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="What may be done (YAML); default: ask about everything.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Id of a model, a folder, or http://host:port/v1#model.")
    ] = None,
    quantization: Annotated[str | None, typer.Option(help="auto, nf4, int8 or none.")] = None,
    approve: Annotated[str, typer.Option(help="How questions are answered: ask, yes or no.")] = "ask",
    solo: Annotated[
        bool | None,
        typer.Option("--solo/--no-solo", help="You work alone: you may approve (tier 1) what you ask for."),
    ] = None,
    observe: Annotated[
        bool,
        typer.Option(
            "--observe", help="Only observe: nothing is applied, and the report says what would be."
        ),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait", help="Wait for answers from another terminal where there is none here."
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON at the end.")] = False,
) -> None:
    """Handle an alert: find the cause, plan, ask, act, verify, and report.

    Ends with code 0 where the incident is resolved or closed, 3 where it waits for an answer, 4 where it was
    handed to people, 5 where everything is stopped (`watchkeeper stop`).
    """
    from watchkeeper.cli.models import ensure_pulled
    from watchkeeper.cli.output import print_json, stderr_console
    from watchkeeper.cli.records import mistakes
    from watchkeeper.cli.terminal import Terminal
    from watchkeeper.models.endpoint import is_endpoint
    from watchkeeper.runtime.alerts import Alert
    from watchkeeper.runtime.policy import Policy
    from watchkeeper.runtime.runs import RunFile
    from watchkeeper.runtime.settings import load_settings
    from watchkeeper.tools.inventory import Inventory
    from watchkeeper.tools.plugins import load_registry

    if (alert is None) == (resume is None):
        raise typer.BadParameter("name either an alert file or --resume INCIDENT")
    if approve not in {"ask", "yes", "no"}:
        raise typer.BadParameter(f"--approve is ask, yes or no, not {approve!r}")
    console = stderr_console()
    terminal = Terminal(console)
    options: dict[str, Any] = {
        "inventory": inventory,
        "policy": policy,
        "model": model,
        "quantization": quantization,
        "solo": solo,
        "observe_only": observe or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    with mistakes(), contextlib.ExitStack() as stack:
        settings = load_settings(**given)
        kept = RunFile.read(settings.home, resume) if resume is not None else None
        if kept is not None:
            settings = load_settings(**(kept.options() | given))
        # All that a user wrote is read before libraries are loaded, and before a model is fetched: that takes
        # seconds, or minutes.
        raised, written = Alert.read(alert) if alert is not None else (None, None)
        engine = lazy_engine(console, settings)
        stack.callback(engine.close)
        hosts, registry = (
            Inventory.load(settings.inventory_path),
            load_registry(settings.tools, settings.log_predictor),
        )
        path = settings.policy_path
        rules = Policy.load(path, registry) if path else Policy.default(registry)
        if raised is not None:
            raised.check(hosts, registry, document=written)
        from watchkeeper.runtime.orchestrator import Orchestrator
        from watchkeeper.runtime.people import token_from_environment

        orchestrator = stack.enter_context(
            Orchestrator(
                inventory=hosts,
                engine=engine,
                policy=rules,
                settings=settings,
                token=token_from_environment(),
                terminal=terminal.call,
            )
        )
        orchestrator.journal.halts.check()
        say_what_sandbox_is_missing(console)
        if raised is not None:
            ensure_pulled(settings.model, console)
            if is_endpoint(settings.model):
                # One that does not answer leaves no incident behind that nobody works on.
                engine.open()
            incident_id = orchestrator.open(raised).id
            keep_options(settings, incident_id)
        else:
            incident_id = orchestrator.journal.incidents.get(str(resume)).id
            ensure_pulled(settings.model, console)
            if solo:
                say_what_solo_cannot_change(orchestrator, incident_id, console)
        if not orchestrator.journal.incidents.get(incident_id).status.ended:
            engine.preload()
        handle(orchestrator, incident_id, terminal, approve=approve, wait=wait)
        report = orchestrator.report(incident_id)
        if as_json:
            print_json(report.model_dump(mode="json"))
        elif report.incident.status.ended:
            path = settings.home / "reports" / f"{incident_id}.md"
            console.print(f"report: {path}", highlight=False, markup=False)
    status = report.incident.status
    if not status.ended:
        console.print(f"{incident_id} waits for an answer; then: watchkeeper run --resume {incident_id}")
        raise typer.Exit(AWAITING)
    if status.value == "escalated":
        raise typer.Exit(ESCALATED)
