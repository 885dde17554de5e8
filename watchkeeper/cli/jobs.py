"""``watchkeeper jobs``: have predictors trained, watch that, and end or resume it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchkeeper.cli.identity import AskToken
from watchkeeper.cli.jobs_show import logs, show
from watchkeeper.cli.jobs_work import work
from watchkeeper.cli.records import Json, day, opened, print_json, print_table, upper

if TYPE_CHECKING:
    from watchkeeper.runtime.roles import Permission
    from watchkeeper.runtime.settings import Settings
    from watchkeeper.runtime.training import TrainingJobs

app = typer.Typer(no_args_is_help=True, help="Train predictors: submit jobs, watch, cancel and resume them.")
app.command()(show)
app.command()(logs)
app.command()(work)

Id = Annotated[str, typer.Argument(metavar="JOB", callback=upper, help="For example JOB-7K3QWX.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show how far it is until it has ended.")]


@app.command()
def submit(
    spec: Annotated[
        Path | None, typer.Argument(metavar="JOB.yaml", help="What is to be done; options beat it.")
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="A trainer by its name, or one of your own as module:Class.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="File or folder to learn from.")] = None,
    name: Annotated[str | None, typer.Option(help="What it is called.")] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the trainer.")
    ] = None,
    modules: Annotated[Path | None, typer.Option(help="Folder in which your own trainer is.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything drawn by chance.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Most seconds that it may take.")] = None,
    memory: Annotated[str | None, typer.Option(help="Most memory that it may hold, such as 2GB.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processors that it may compute on.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs that it needs.")] = None,
    retries: Annotated[int | None, typer.Option(help="Times that it is begun again after a crash.")] = None,
    launcher: Annotated[str | None, typer.Option(help="accelerate or python.")] = None,
    runs_on: Annotated[str | None, typer.Option("--on", help="here or ray.")] = None,
    wait: Wait = False,
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Submit a training job, leave it to `watchkeeper serve` or `watchkeeper jobs work`, and print its id."""
    from watchkeeper.cli.jobs_wait import wait_for
    from watchkeeper.tools.training.checking import check_spec
    from watchkeeper.tools.training.spec import JobSpec, parse_parameters

    with _jobs() as (settings, jobs):
        given = {
            "trainer": trainer,
            "data": data,
            "name": name,
            "modules": modules,
            "seed": seed,
            "retries": retries,
            "launcher": launcher,
            "runs_on": runs_on,
            "limits.seconds": seconds,
            "limits.memory": memory,
            "limits.threads": threads,
            "limits.gpus": gpus,
            "parameters": parse_parameters(parameters or []),
        }
        wanted = JobSpec.of_options(given, None if spec is None else JobSpec.load(spec))
        check_spec(wanted, elsewhere=jobs.shared)
        person = _person(settings, "have a predictor trained", ask_token=ask_token)
        job = jobs.submit(wanted, by=person)
        if wait:
            wait_for(jobs, job.id, as_json=as_json)
        elif as_json:
            print_json(job)
        else:
            typer.echo(job.id)


@app.command("list")
def list_(
    status: Annotated[
        str | None, typer.Option(help="Only those that are queued, running, done, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List training jobs, the newest first."""
    from watchkeeper.tools.errors import JobStateError
    from watchkeeper.tools.training.record import TrainingStatus

    with _jobs() as (_, jobs):
        if status is not None and status not in set(TrainingStatus):
            raise JobStateError(f"--status {status!r}: there are: {', '.join(TrainingStatus)}")
        found = jobs.list(status=None if status is None else TrainingStatus(status), limit=limit)
        if as_json:
            print_json(found)
            return
        print_table(
            ("ID", "STATUS", "DONE", "SUBMITTED (UTC)", "TRAINER", "NAME", "REASON"),
            [
                (
                    job.id,
                    job.status.value,
                    f"{jobs.folder(job.id).progress.done:.0%}",
                    day(job.created_at),
                    job.spec.trainer,
                    job.name,
                    f"{job.how}: {job.reason}" if job.how else job.reason,
                )
                for job in found
            ],
            empty="no training jobs",
        )


@app.command()
def cancel(
    job_id: Id,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the job.")] = "",
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Cancel a training job; its processes end within seconds, and it can be resumed."""
    from watchkeeper.cli.jobs_wait import wait_until_gone

    with _jobs() as (settings, jobs):
        jobs.get(job_id)
        person = _person(settings, f"cancel {job_id}", ask_token=ask_token)
        job = jobs.cancel(job_id, by=person, reason=reason)
        gone = wait_until_gone(jobs, job)
        if as_json:
            print_json(job)
            return
        left = "" if gone else "; a process of it is still there, and is killed by whoever runs it"
        typer.echo(f"{job.id} is {job.status.value}{left}")


@app.command()
def resume(
    job_id: Id,
    seconds: Annotated[
        float | None, typer.Option(help="Most seconds that it may take, those of before among them.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Most memory that it may hold from now on, such as 2GB.")
    ] = None,
    wait: Wait = False,
    ask_token: AskToken = False,
    as_json: Json = False,
) -> None:
    """Have a job that failed or was cancelled go on from its last checkpoint, perhaps within other limits."""
    from watchkeeper.cli.jobs_wait import wait_for
    from watchkeeper.tools.training.spec import JobSpec

    with _jobs() as (settings, jobs):
        jobs.get(job_id)
        person = _person(settings, f"resume {job_id}", ask_token=ask_token)
        given = {"limits.seconds": seconds, "limits.memory": memory}
        limits = None
        if any(value is not None for value in given.values()):
            limits = JobSpec.of_options(given, jobs.get(job_id).spec).limits
        job = jobs.resume(job_id, by=person, attended=True, limits=limits)
        if wait:
            wait_for(jobs, job.id, as_json=as_json)
        elif as_json:
            print_json(job)
        else:
            typer.echo(f"{job.id} is {job.status.value}")


@app.command()
def remove(job_id: Id, ask_token: AskToken = False, as_json: Json = False) -> None:
    """Remove a job that has ended, with its folder: log, checkpoints and artefacts."""
    from watchkeeper.runtime.roles import Permission

    with _jobs() as (settings, jobs):
        job = jobs.get(job_id)
        person = _person(settings, f"remove {job_id}", ask_token=ask_token, permission=Permission.PRUNE)
        jobs.remove(job_id, by=person)
        if as_json:
            print_json(job)
            return
        typer.echo(f"{job_id} is removed")


@contextmanager
def _jobs() -> Iterator[tuple[Settings, TrainingJobs]]:
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.training import TrainingJobs

        yield settings, TrainingJobs(store, settings.home, AuditLog(settings.home))


def _person(settings: Settings, what: str, *, ask_token: bool, permission: Permission | None = None) -> str:
    from watchkeeper.cli.identity import permitted_person
    from watchkeeper.runtime.roles import Permission

    needed = permission or Permission.RUN
    return permitted_person(settings.home, needed, what, ask_token=ask_token).name
