"""Waiting for a training job at a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from watchkeeper.runtime.training import TrainingJobs
    from watchkeeper.tools.training.record import TrainingJob

FAILED = 1
"""Exit code where the job did not end well."""

_POLL_SECONDS = 0.3
_PARTS = 1000
_GONE_SECONDS = 15.0


def wait_for(jobs: TrainingJobs, job_id: str, *, as_json: bool) -> None:
    """Show how far a job is until it has ended; Ctrl-C leaves it to go on.

    Raises:
        typer.Exit: With code 1 if it failed or was cancelled, 130 after Ctrl-C.
    """
    from watchkeeper.cli.output import INTERRUPTED, progress_view, stderr_console
    from watchkeeper.cli.records import plain, print_json
    from watchkeeper.tools.training.record import TrainingStatus

    console = stderr_console()
    try:
        with progress_view(console) as report:
            while (job := jobs.get(job_id)).status.live:
                progress = jobs.folder(job_id).progress
                if job.status is TrainingStatus.QUEUED:
                    report(f"{job_id} waits: {plain(job.waits)}", 0, 1)
                else:
                    what = f": {plain(progress.what)}" if progress.what and console.is_terminal else ""
                    report(f"{job_id} trains{what}", int(progress.done * _PARTS), _PARTS)
                time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        console.print(
            f"{job_id} goes on where a worker is; end it with `watchkeeper jobs cancel {job_id}`",
            highlight=False,
        )
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(job)
    else:
        why = (
            f" ({job.how}): {plain(job.reason)}"
            if job.how
            else f": {plain(job.reason)}"
            if job.reason
            else ""
        )
        typer.echo(f"{job.id} is {job.status.value}{why}")
    if job.status is not TrainingStatus.DONE:
        raise typer.Exit(FAILED)


def wait_until_gone(jobs: TrainingJobs, job: TrainingJob) -> bool:
    """Wait until no process of a job is left on this machine; whether that was so in time."""
    from watchkeeper.tools.training import processes

    folder = jobs.folder(job.id)
    deadline = time.monotonic() + _GONE_SECONDS
    while folder.path.is_dir() and not job.status.live:
        with folder.held() as alone:
            if alone and not processes.marked(str(folder.path.absolute())):
                break
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
