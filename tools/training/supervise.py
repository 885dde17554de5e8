"""Watch over an attempt of a training job: ``python -m watchkeeper.tools.training.supervise FOLDER ATTEMPT``.

This is what a Ray cluster is given to run; see `watchkeeper.tools.training.ray_jobs`.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from watchkeeper.tools.training.folder import JobFolder
from watchkeeper.tools.training.process import supervise

_GRACE_SECONDS = 2.0
"""Less than Ray gives a job that it stops."""


def main(path: Path, attempt: int) -> int:
    """Do the attempt, write how it ended into the job's folder, and return the exit status."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    folder = JobFolder(path)
    ending = supervise(folder, attempt, wanted=lambda: not told.is_set(), grace=_GRACE_SECONDS)
    folder.write_ending(ending)
    print(f"{ending.how}{f': {ending.reason}' if ending.reason else ''}")
    return 0 if ending.how == "done" else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
