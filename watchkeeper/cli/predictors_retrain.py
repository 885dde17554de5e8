"""`watchkeeper predictors retrain`: a new version, from its data to its answers, behind the gate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.output import fail
from watchkeeper.cli.records import Json, mistakes, plain, upper

if TYPE_CHECKING:
    from rich.console import Console

    from watchkeeper.runtime.lifecycle_rules import Retraining
    from watchkeeper.runtime.orchestrator import Orchestrator
    from watchkeeper.runtime.settings import Settings
    from watchkeeper.tools.inventory import Inventory
    from watchkeeper.tools.training.spec import JobSpec

REFUSED = 1
"""Exit code where no new version answers."""

AWAITING = 3
"""Exit code where it waits for an answer that nobody here can give."""

ESCALATED = 4
"""Exit code where it was handed to people."""


def register(app: typer.Typer) -> None:
    """Add the command to `watchkeeper predictors`."""
    app.command()(retrain)


def retrain(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The predictor.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="What it learns from; default: that of lifecycle.yaml.")
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="What it is judged by; default: that of lifecycle.yaml.")
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(metavar="JOB.yaml", help="How it is trained; default: as the version that answers."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Host of the inventory; default: that of lifecycle.yaml, or the first.")
    ] = None,
    purpose: Annotated[str | None, typer.Option(help="What it is for; stands on its card.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="INCIDENT", callback=lambda v: v and upper(v), help="Go on with it.")
    ] = None,
    approve: Annotated[str, typer.Option(help="How questions are answered: ask, yes or no.")] = "ask",
    solo: Annotated[
        bool | None,
        typer.Option("--solo/--no-solo", help="You work alone: you may approve (tier 1) what you ask for."),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Train here, too; otherwise workers do.")
    ] = True,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for training, labels, and answers of others.")
    ] = True,
    watch: Annotated[
        int | None,
        typer.Option(min=0, metavar="LABELS", help="Labels of live answers to look at; 0 for no watch."),
    ] = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="Leave it to `watchkeeper serve`, and print its id.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check data, train, compare with the champion, test for bias, ask, promote, watch, and take it back.

    Ctrl-C leaves a state to go on from with --resume. Ends with code 0 where the new version answers, 1 where
    it was refused, 3 where it waits, 4 where it was handed to people, such as after a rollback.
    """
    from watchkeeper.cli.output import stderr_console
    from watchkeeper.cli.run import handle, lazy_engine
    from watchkeeper.cli.terminal import Terminal

    if (name is None) == (resume is None):
        raise typer.BadParameter("name either a predictor or --resume INCIDENT")
    if approve not in {"ask", "yes", "no"}:
        raise typer.BadParameter(f"--approve is ask, yes or no, not {approve!r}")
    console = stderr_console()
    with mistakes(), contextlib.ExitStack() as stack:
        from watchkeeper.runtime.orchestrator import Orchestrator
        from watchkeeper.runtime.people import token_from_environment
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.tools.inventory import Inventory

        settings = load_settings(solo=solo)
        hosts = Inventory.load(settings.inventory_path)
        engine = lazy_engine(console, settings)
        stack.callback(engine.close)
        asked = None
        if name is not None:
            asked = _request(settings, hosts, name, data, held_out, job, host, purpose)
            if watch is not None:
                live = asked.live.model_copy(update={"labels": watch})
                asked = asked.model_copy(update={"live": live})
        terminal = Terminal(console)
        orchestrator = stack.enter_context(
            Orchestrator(
                inventory=hosts,
                engine=engine,
                policy=settings.policy_path,
                settings=_with_tools(settings),
                token=token_from_environment(),
                terminal=terminal.call,
            )
        )
        orchestrator.journal.halts.check()
        incident_id = str(resume) if asked is None else orchestrator.retrain(asked, queue=submit).id
        if submit:
            typer.echo(incident_id)
            return
        orchestrator.journal.incidents.get(incident_id)
        if not as_json:
            console.print(
                f"{incident_id}: go on after a stop with: watchkeeper predictors retrain --resume "
                f"{incident_id}",
                highlight=False,
                markup=False,
            )
        if train:
            stack.enter_context(_training(orchestrator, settings, hosts, console))
        try:
            again = "watchkeeper predictors retrain"
            handle(orchestrator, incident_id, terminal, approve=approve, wait=wait, again=again)
        finally:
            code = _tell(orchestrator, incident_id, as_json=as_json)
    if code:
        raise typer.Exit(code)


def _request(
    settings: Settings,
    hosts: Inventory,
    name: str,
    data: Path | None,
    held_out: Path | None,
    job: Path | None,
    host: str | None,
    purpose: str | None,
) -> Retraining:
    """Put together what is asked for: options beat ``lifecycle.yaml``, which beats the champion's job."""
    from pydantic import ValidationError

    from watchkeeper.runtime.errors import ConfigurationError
    from watchkeeper.runtime.lifecycle_rules import FILE, LifecycleRules, Retraining
    from watchkeeper.tools.training.spec import JobSpec

    known = LifecycleRules.of_home(settings.home).retraining(name)
    spec = known.job if known is not None else None
    if job is not None:
        spec = JobSpec.load(job)
    elif spec is None:
        spec = _champions_job(settings, name)
    if data is not None:
        spec = spec.model_copy(update={"data": data.absolute()})
    elif known is None and job is None:
        fail(f"name what {name} learns from with --data, or say it in {settings.home / FILE}")
    held = held_out.absolute() if held_out else known.held_out if known else None
    if held is None:
        fail(f"name what {name} is judged by with --held-out, or say it in {settings.home / FILE}")
    first = next((one.name for one in hosts), None)
    place = host or (known.host if known is not None else first)
    values = known.model_dump() if known is not None else {"label_column": _label_column(settings, name)}
    values |= {"predictor": name, "host": place, "job": spec, "held_out": held}
    if purpose is not None:
        values["purpose"] = purpose
    try:
        return Retraining.model_validate(values)
    except ValidationError as error:
        first_error = error.errors()[0]
        where = ".".join(str(part) for part in first_error["loc"])
        raise ConfigurationError(f"retraining of {name!r:.80}: {where}: {first_error['msg']}") from error


def _champions_job(settings: Settings, name: str) -> JobSpec:
    """Train as the version that answers was trained."""
    from watchkeeper.runtime.job_lineage import spec_of
    from watchkeeper.tools.training.spec import JobSpec
    from watchkeeper.tools.versions import Versions

    record = Versions(settings.home, create=False).get(name).record
    known, manifest = spec_of(record.job), record.manifest
    if known is not None:
        # With its limits, and where its trainer is found.
        return known.model_copy(update={"name": name, "data": Path()})
    return JobSpec(
        name=name,
        trainer=manifest.trainer,
        data=Path(),
        parameters=manifest.parameters,
        seed=manifest.seed,
    )


def _label_column(settings: Settings, name: str) -> str:
    """Hold labels against the column that those of the version that answers are held against."""
    from watchkeeper.tools.errors import ToolError
    from watchkeeper.tools.versions import Versions

    try:
        return Versions(settings.home, create=False).get(name).record.notes.label_column or "label"
    except ToolError:
        return "label"


def _with_tools(settings: Settings) -> Settings:
    """Have the tools that a lifecycle needs, whether the configuration names them or not."""
    from watchkeeper.runtime.lifecycles import TOOLS

    if TOOLS in settings.tools:
        return settings
    return settings.model_copy(update={"tools": (*settings.tools, TOOLS)})


@contextlib.contextmanager
def _training(
    orchestrator: Orchestrator, settings: Settings, hosts: Inventory, console: Console
) -> Iterator[None]:
    from watchkeeper.cli.jobs_work import beside, training_worker

    worker = training_worker(orchestrator.journal, settings, hosts, console, lease=30)
    with beside(worker, threads=1, once=False):
        yield


def _tell(orchestrator: Orchestrator, incident_id: str, *, as_json: bool) -> int:
    """Say how it stands, and return the exit code."""
    from watchkeeper.cli.output import print_json
    from watchkeeper.runtime.events import LifecycleEnded

    events = orchestrator.journal.incidents.events(incident_id)
    ended = [event for event in events if isinstance(event, LifecycleEnded)]
    incident = orchestrator.journal.incidents.get(incident_id)
    status, found = incident.status, ended[-1] if ended else None
    if as_json:
        print_json(
            {
                "incident": incident_id,
                "status": status.value,
                "outcome": found.outcome if found else None,
                "reason": found.reason if found else incident.summary or None,
                "version": found.version if found else None,
                "report": found.report if found else None,
            }
        )
    elif found is not None:
        typer.echo(f"{plain(found.predictor)}: {found.outcome}: {plain(found.reason)}")
        typer.echo(f"report: {found.report}")
    elif status.ended:
        typer.echo(f"{incident_id} was handed to people: {plain(incident.summary)}")
    else:
        typer.echo(f"{incident_id} waits; then: watchkeeper predictors retrain --resume {incident_id}")
    if status.value == "escalated":
        return ESCALATED
    if found is None:
        return AWAITING
    return 0 if found.outcome in {"promoted", "left"} else REFUSED
