"""Training jobs on a Ray cluster, by Ray's Jobs API.

The cluster sees the job's folder and data under the same paths (a shared file system), and has Watchkeeper
installed. What runs there is what runs here, so that limits, checkpoints and artefacts are the same. What was
submitted bears the path of the job's folder, so that anybody finds it again who knows the job.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from watchkeeper.tools.errors import ClusterError, MissingExtraError
from watchkeeper.tools.training.folder import Ending, JobFolder
from watchkeeper.tools.training.spec import JobSpec

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_POLL_SECONDS = 0.5
_FAILURES = (OSError, RuntimeError)
"""What the client raises where the cluster does not answer, or answers that it cannot."""
_SILENT_SECONDS = 60.0
"""Time for which the cluster may not answer."""

_REQUEST_SECONDS = (5.0, 20.0)
"""Time for one request: to be connected, and to be answered; Ray's own client waits for ever."""

_STOPPING_SECONDS = 30.0
"""Time for which the end of what is stopped is waited for."""

_JOB = "watchkeeper_job"
_ATTEMPT = "watchkeeper_attempt"


def supervise_on_ray(
    folder: JobFolder, attempt: int, *, address: str, wanted: Callable[[], bool] = lambda: True
) -> Ending:
    """Do one attempt of a job on a Ray cluster, and wait for its end.

    Where an attempt of whoever watched before still runs there, that one is waited for instead.

    Args:
        folder: The job's folder, which the cluster sees, too.
        attempt: Number of the attempt, from 1.
        address: Of the cluster's dashboard, for example ``http://127.0.0.1:8265``.
        wanted: Asked several times a second; the job is stopped, to go on later, once it says no.

    Raises:
        JobFolderError: If the folder is none of a job.
    """
    spec = folder.spec
    if not address:
        reason = "it is to run on Ray, and the setting ray_address names no cluster"
        return Ending(attempt=attempt, how="spec", reason=reason)
    try:
        client = _client(address)
        running = _running(client, folder)
    except MissingExtraError as error:
        return Ending(attempt=attempt, how="spec", reason=str(error))
    except _FAILURES as error:
        return _unreachable(attempt, address, error)
    if running is None:
        try:
            folder.reserve_ending()
        except OSError as error:
            return Ending(attempt=attempt, how="no-space", reason=f"{folder.path} cannot be written: {error}")
        try:
            running = _submit(client, folder, spec, attempt), attempt
        except _FAILURES as error:
            return _unreachable(attempt, address, error)
    submission, number = running
    try:
        asked, said = _wait(client, submission, wanted)
    except _FAILURES as error:
        return _unreachable(attempt, address, error)
    ending = folder.ending(number)
    if ending is not None and (ending.how != "done" or folder.artefacts.is_dir()):
        ending = ending.model_copy(update={"attempt": attempt})
        # Somebody else stopped it on the cluster.
        return (
            ending.model_copy(update={"how": "crashed"}) if ending.how == "stopped" and not asked else ending
        )
    if asked:
        return Ending(attempt=attempt, how="stopped", reason="it was told to end")
    return Ending(attempt=attempt, how="crashed", reason=f"Ray says of {submission}: {said}")


def stop_on_ray(folder: JobFolder, *, address: str) -> None:
    """Stop whatever of a job runs or waits on a Ray cluster, whoever submitted it; returns once it has ended.

    Args:
        folder: The job's folder; nothing of it is read.
        address: Of the cluster's dashboard.

    Raises:
        ClusterError: If the cluster cannot be asked, or does not do it in time.
    """
    deadline = time.monotonic() + _STOPPING_SECONDS
    try:
        client = _client(address)
        while (running := _running(client, folder)) is not None:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the Ray cluster at {address!r} was told to stop {running[0]} and it still runs after "
                    f"{_STOPPING_SECONDS:g} s"
                )
            client.stop_job(running[0])
            time.sleep(_POLL_SECONDS)
    except MissingExtraError as error:
        raise ClusterError(str(error)) from error
    except _FAILURES as error:
        raise ClusterError(_does_not(address, error)) from error


def _wait(client: JobSubmissionClient, submission: str, wanted: Callable[[], bool]) -> tuple[bool, str]:
    """Wait for the end; return whether a stop was asked for, and what Ray says of it.

    Raises:
        ConnectionError: If the cluster does not answer for long.
    """
    asked = False
    heard = time.monotonic()
    while True:
        try:
            if not asked and not wanted():
                client.stop_job(submission)
                asked = True
            info = client.get_job_info(submission)
            heard = time.monotonic()
            if info.status.is_terminal():
                return asked, " ".join(str(info.message or info.status.value).split())
        except _FAILURES:
            if time.monotonic() - heard > _SILENT_SECONDS:
                raise
        time.sleep(_POLL_SECONDS)


def _submit(client: JobSubmissionClient, folder: JobFolder, spec: JobSpec, attempt: int) -> str:
    path = str(folder.path.absolute())
    limits = spec.limits
    return str(
        client.submit_job(
            entrypoint=f"python -m watchkeeper.tools.training.supervise {shlex.quote(path)} {attempt}",
            metadata={_JOB: path, _ATTEMPT: str(attempt)},
            entrypoint_num_cpus=limits.threads,
            entrypoint_num_gpus=limits.gpus or None,
            entrypoint_memory=limits.memory,
        )
    )


def _running(client: JobSubmissionClient, folder: JobFolder) -> tuple[str, int] | None:
    """Return the submission of this job that runs or waits on the cluster, with its attempt."""
    path = str(folder.path.absolute())
    for details in client.list_jobs():
        metadata = details.metadata or {}
        if metadata.get(_JOB) == path and not details.status.is_terminal() and details.submission_id:
            return details.submission_id, int(metadata.get(_ATTEMPT, "1"))
    return None


def _client(address: str) -> JobSubmissionClient:
    try:
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise MissingExtraError("a job on Ray needs `pip install 'watchkeeper[ray]'`") from error

    class Client(JobSubmissionClient):
        """One whose requests end."""

        def _do_request(self, method: str, endpoint: str, **given: Any) -> Any:
            try:
                return super()._do_request(method, endpoint, **{"timeout": _REQUEST_SECONDS, **given})
            except RayError as error:  # a token that is not the cluster's
                raise ConnectionError(str(error)) from error

    return Client(address)


def _unreachable(attempt: int, address: str, error: Exception) -> Ending:
    return Ending(attempt=attempt, how="crashed", reason=_does_not(address, error), left=True)


def _does_not(address: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return f"the Ray cluster at {address!r} does not do it: {said}"
