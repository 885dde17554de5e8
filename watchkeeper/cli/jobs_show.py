"""``watchkeeper jobs show`` and ``logs``: how far a training job is, what it cost, and what it printed."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchkeeper.cli.output import INTERRUPTED
from watchkeeper.cli.records import Json, opened, plain, print_json, print_pairs, print_table, upper, when

if TYPE_CHECKING:
    from watchkeeper.tools.training.folder import JobFolder

Id = Annotated[str, typer.Argument(metavar="JOB", callback=upper, help="For example JOB-7K3QWX.")]

_LINES = 10
_POLL_SECONDS = 0.3


def show(
    job_id: Id,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw its training curve into a file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a training job: how far it is, its metrics, and what it cost."""
    with opened() as (settings, store):
        from watchkeeper.cli.output import human_bytes
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.training import TrainingJobs
        from watchkeeper.tools.training.cost import cost_of

        jobs = TrainingJobs(store, settings.home, AuditLog(settings.home))
        job = jobs.get(job_id)
        folder = jobs.folder(job_id)
        progress, metrics = folder.progress, folder.metrics()
        cost = cost_of(progress, folder.environment, watts=settings.cpu_watts)
        if plot is not None:
            from watchkeeper.tools.training.curve import plot_curve

            plot_curve(metrics, plot, title=f"{job.name} ({job.id})")
        if as_json:
            told: dict[str, Any] = {
                "job": job.model_dump(mode="json"),
                "folder": str(folder.path),
                "progress": progress.model_dump(mode="json"),
                "metrics": metrics,
                "cost": cost.model_dump(mode="json"),
                "environment": folder.environment,
            }
            print_json(told)
            return
        print_pairs(
            [
                ("job", job.id),
                ("name", job.name),
                ("status", f"{job.status.value}{f' ({job.how})' if job.how else ''}"),
                ("reason", job.reason),
                ("incident", job.incident_id),
                ("trainer", f"{job.spec.trainer}, seed {job.spec.seed}"),
                ("data", str(job.spec.data)),
                ("submitted", f"{when(job.created_at)} UTC by {job.submitted_by}"),
                ("begun", f"{when(job.started_at)} UTC on {job.machine}" if job.started_at else ""),
                ("gpus", ", ".join(job.gpus)),
                ("cluster", job.cluster),
                ("ended", f"{when(job.ended_at)} UTC" if job.ended_at else ""),
                ("attempts", f"{job.attempts} of {job.spec.retries + 1}" if job.attempts else ""),
                ("done", f"{progress.done:.0%}{f', {progress.what}' if progress.what else ''}"),
                ("memory", f"{human_bytes(progress.peak_memory)} at most" if progress.peak_memory else ""),
                ("cost", cost.text),
                ("folder", str(folder.path)),
            ]
        )
        _print_metrics(metrics)
        if plot is not None:
            typer.echo(f"\nthe training curve is in {plot}")


def logs(
    job_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    lines: Annotated[
        int, typer.Option(min=1, max=100_000, help="Begin with so many of its last lines.")
    ] = 100,
    as_json: Json = False,
) -> None:
    """Print what a training job printed."""
    with opened() as (settings, store):
        from watchkeeper.runtime.audit import AuditLog
        from watchkeeper.runtime.training import TrainingJobs

        jobs = TrainingJobs(store, settings.home, AuditLog(settings.home))
        jobs.get(job_id)
        folder = jobs.folder(job_id)
        last, place = _last_lines(folder, lines)
        if as_json:
            print_json({"job": job_id, "lines": last})
            return
        for line in last:
            typer.echo(plain(line))
        try:
            while follow:
                live = jobs.get(job_id).status.live
                place = _print_from(folder, place, rest=not live)
                if not live:
                    return
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _last_lines(folder: JobFolder, count: int) -> tuple[list[str], int]:
    """Return the last whole lines of a log, and where the next one begins."""
    found: deque[bytes] = deque(maxlen=count)
    place = 0
    try:
        with folder.log.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    found.append(line)
                    place += len(line)
    except FileNotFoundError:
        return [], 0
    return [line.decode("utf-8", "replace").rstrip("\n") for line in found], place


def _print_from(folder: JobFolder, place: int, *, rest: bool = False) -> int:
    """Print whole lines of a log from a place on, and with ``rest`` a last one that was not ended."""
    try:
        with folder.log.open("rb") as stream:
            stream.seek(place)
            for line in stream:
                if not line.endswith(b"\n") and not rest:
                    break
                typer.echo(plain(line.decode("utf-8", "replace").rstrip("\n")))
                place += len(line)
    except FileNotFoundError:
        return place
    return place


def _print_metrics(metrics: list[dict[str, float]]) -> None:
    if not metrics:
        return
    names = list(dict.fromkeys(name for line in metrics for name in line if name != "step"))
    typer.echo("")
    print_table(
        ("STEP", *(name.upper() for name in names)),
        [
            (f"{line['step']:g}", *(f"{line[name]:.6g}" if name in line else "" for name in names))
            for line in metrics[-_LINES:]
        ],
        empty="",
    )
