"""Do one attempt of a training job: ``python -m watchkeeper.tools.training.run FOLDER``.

It is started by `watchkeeper.tools.training.process.supervise`, which watches over it.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import threading
import traceback
from pathlib import Path

from pydantic import ValidationError

from watchkeeper.models.errors import ModelError
from watchkeeper.tools.errors import (
    ArtefactError,
    DataError,
    DivergedError,
    JobCancelledError,
    MissingExtraError,
    UnknownTrainerError,
)
from watchkeeper.tools.training.catalog import trainer_of
from watchkeeper.tools.training.environment import describe_environment, gpu_meter
from watchkeeper.tools.training.folder import Ending, JobFolder
from watchkeeper.tools.training.recording import RecordedRun
from watchkeeper.tools.training.spec import JobSpec

LIFELINE = "WATCHKEEPER_LIFELINE"
"""Set where standard input is held open by whoever watches over this: its end is the end."""

ATTEMPT = "WATCHKEEPER_ATTEMPT"
PROCESSORS = "WATCHKEEPER_PROCESSORS"

_NICE = 10
_FIRST_TO_GO = "500"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LITTLE = 1 << 20
_PATIENCE = 5.0


def main(path: Path) -> int:
    """Do the attempt and write how it ended; the exit status says whether that could be written.

    Only the first of several processes that train together writes.
    """
    _be_modest()
    if os.environ.get(LIFELINE):
        threading.Thread(target=_end_with_the_watcher, name="lifeline", daemon=True).start()
    folder = JobFolder(path)
    attempt = int(os.environ.get(ATTEMPT, "1"))
    first = os.environ.get("RANK", "0") == "0"
    with folder.held(patience=_PATIENCE) if first else _nothing_held() as alone:
        if not alone:
            print("another process works in this folder", file=sys.stderr)
            return 1
        ending = _attempt(folder, attempt, writes=first)
        if first:
            folder.write_ending(ending)
    if ending.how != "done":
        print(f"{ending.how}: {ending.reason}", file=sys.stderr)
    return 0


def _attempt(folder: JobFolder, attempt: int, *, writes: bool) -> Ending:
    try:
        spec = folder.spec
        if spec.modules is not None:
            sys.path.insert(0, str(spec.modules))
        _train(folder, spec, attempt, writes=writes)
    except JobCancelledError as error:
        return Ending(attempt=attempt, how="stopped", reason=str(error))
    except DivergedError as error:
        return Ending(attempt=attempt, how="diverged", reason=str(error))
    except (DataError, ArtefactError) as error:
        return Ending(attempt=attempt, how="data", reason=str(error))
    except (UnknownTrainerError, MissingExtraError, ModelError) as error:
        return Ending(attempt=attempt, how="spec", reason=str(error))
    except MemoryError:
        traceback.print_exc()
        return Ending(attempt=attempt, how="memory", reason="the system gave it no more memory")
    except Exception as error:  # noqa: BLE001 (whatever a trainer raises is how its job ends)
        traceback.print_exc()
        reason = _space(error, folder.path)
        if reason:
            return Ending(attempt=attempt, how="no-space", reason=reason)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return Ending(attempt=attempt, how="crashed", reason=said)
    return Ending(attempt=attempt, how="done")


def _train(folder: JobFolder, spec: JobSpec, attempt: int, *, writes: bool) -> None:
    trainer = trainer_of(spec.trainer)
    try:
        parameters = trainer.parse_parameters(spec.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "parameters"
        raise UnknownTrainerError(
            f"trainer {spec.trainer!r}: parameter {place}: {first['msg']} (got {first['input']!r:.80})"
        ) from error
    if writes:
        folder.write_environment(describe_environment())
    run = RecordedRun(
        folder,
        spec,
        before=folder.progress,
        attempt=attempt,
        writes=writes,
        joules=gpu_meter(spec.limits.gpus),
    )
    run.cancel_on(signal.SIGTERM)
    run.learn_from(trainer.inspect(spec.data, parameters).sha256)
    run.check()
    trainer.train(run, parameters)
    if writes:
        folder.finish()
        run.beat(done=True)


def _space(error: BaseException, folder: Path) -> str:
    """Say that there was no room, where that is why something failed; else nothing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
            place = f" for {str(cause.filename)!r}" if cause.filename else ""
            return f"{os.strerror(cause.errno or 0)}{place}: make room, then resume the job"
        cause = cause.__cause__ or cause.__context__
    # Libraries that write by themselves tell it in words of their own.
    if shutil.disk_usage(folder).free < _LITTLE:
        return f"no space is left where {str(folder)!r} is: make room, then resume the job"
    return ""


def _be_modest() -> None:
    """Let whatever else runs here go first: other programs, and agents above all."""
    os.nice(_NICE)
    processors = os.environ.get(PROCESSORS, "")
    if processors:
        os.sched_setaffinity(0, {int(number) for number in processors.split(",")})
    try:
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
    except OSError:
        return


def _end_with_the_watcher() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


class _nothing_held:  # noqa: N801 (used as a function)
    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
