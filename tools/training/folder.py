"""The folder of a training job: all that it needs and leaves, readable while it runs.

``spec.json``         what is to be done
``state.json``        how far it is, rewritten about once a second
``log.txt``           what its process printed
``metrics.jsonl``     a line for each step: ``{"step": 3, "loss": 0.2}``
``checkpoints/N/``    whole checkpoints, the newest with the highest step
``artefacts/``        what it leaves; there only when it is done
``environment.json``  Python, libraries and processor of the last attempt
``ending.json``       how the last attempt ended
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from watchkeeper.tools.durable import private_folder, sync_folder, write_durably
from watchkeeper.tools.errors import JobFolderError
from watchkeeper.tools.training.spec import JobSpec

KEPT_CHECKPOINTS = 2
_RESERVED = 8192
"""Bytes that an ending is given before it is known: it can be written then on a disk that is full."""

_DIGITS = 12


class JobProgress(BaseModel):
    """How far a job is.

    Attributes:
        attempt: Number of the attempt, from 1.
        pid: Process of the attempt.
        done: From 0 to 1.
        what: What it does, in a few words.
        step: The last step with metrics.
        seconds: Time that all attempts took so far.
        cpu_seconds: Time that processors computed for all attempts so far.
        gpu_joules: Energy that GPUs drew for all attempts so far, where they measure it.
        memory: Bytes that its processes hold.
        peak_memory: The most that they held.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt: int = 0
    pid: int = 0
    done: float = Field(default=0.0, ge=0, le=1)
    what: str = ""
    step: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_joules: float = 0.0
    memory: int = 0
    peak_memory: int = 0


class Ending(BaseModel):
    """How an attempt ended.

    Attributes:
        attempt: Number of the attempt.
        how: ``done``, ``stopped`` (to go on later), or what went wrong: ``diverged``, ``data``, ``spec``,
            ``no-space``, ``seconds``, ``memory``, ``crashed``.
        reason: In words, for people.
        left: Whether something of it may still run on a cluster that did not answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt: int
    how: str
    reason: str = ""
    left: bool = False

    @property
    def may_pass(self) -> bool:
        """Whether a further attempt may end better."""
        return self.how == "crashed"


class Checkpoint(BaseModel):
    """What is known of a checkpoint besides its files.

    Attributes:
        step: Its step.
        metrics_size: Bytes of the metrics that were kept before it: what comes after is computed again.
        data_sha256: Digest of what was learned from; empty where it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    metrics_size: int
    data_sha256: str = ""


M = TypeVar("M", bound=BaseModel)


class JobFolder:
    """The folder of a training job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.txt"
        self.metrics_file = path / "metrics.jsonl"
        self.artefacts = path / "artefacts"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path, spec: JobSpec) -> JobFolder:
        """Make the folder, or complete it where that was cut off.

        Raises:
            JobFolderError: If it cannot be written.
        """
        folder = cls(path)
        with _refusals(path):
            private_folder(path)
            folder.checkpoints.mkdir(exist_ok=True)
            write_durably(path / "spec.json", spec.model_dump_json(indent=2).encode() + b"\n")
        return folder

    @property
    def spec(self) -> JobSpec:
        """What is to be done.

        Raises:
            JobFolderError: If that is not there.
        """
        found = self._read("spec.json", JobSpec)
        if found is None:
            raise JobFolderError(f"{str(self.path)!r} is no folder of a job: spec.json is missing")
        return found

    @property
    def progress(self) -> JobProgress:
        """How far it is; all zero before it began."""
        return self._read("state.json", JobProgress) or JobProgress()

    def write_progress(self, progress: JobProgress) -> None:
        """Say how far it is; what is lost in a crash is lost, but it is never half of it."""
        part = self.path / f".state.{os.getpid()}"
        part.write_text(progress.model_dump_json() + "\n", encoding="utf-8")
        part.replace(self.path / "state.json")

    def ending(self, attempt: int) -> Ending | None:
        """How an attempt ended; None while it has not, or where its process could not say."""
        try:
            found = self._read("ending.json", Ending)
        except JobFolderError:
            return None
        return found if found is not None and found.attempt == attempt else None

    def reserve_ending(self) -> None:
        """Make room for what is said at the end."""
        with (self.path / "ending.json").open("wb") as stream:
            stream.write(b" " * _RESERVED)
            stream.flush()
            os.fsync(stream.fileno())

    def write_ending(self, ending: Ending) -> None:
        """Say how an attempt ended, in the room that was made for it."""
        short = ending.model_copy(update={"reason": ending.reason[:1000]})
        with (self.path / "ending.json").open("r+b") as stream:
            stream.write(short.model_dump_json().encode()[:_RESERVED].ljust(_RESERVED))
            stream.flush()
            os.fsync(stream.fileno())

    def write_environment(self, values: dict[str, JsonValue]) -> None:
        """Keep what the job runs on."""
        write_durably(self.path / "environment.json", json.dumps(values, indent=2).encode() + b"\n")

    @property
    def environment(self) -> dict[str, JsonValue]:
        """What the last attempt ran on; empty before the first."""
        try:
            read: dict[str, JsonValue] = json.loads((self.path / "environment.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return read

    def metrics(self) -> list[dict[str, float]]:
        """Return the metrics so far, each with its ``step``; a line that is being written is left out."""
        try:
            text = self.metrics_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [json.loads(line) for line in lines]

    def checkpoint(self) -> tuple[Checkpoint, Path] | None:
        """Return the newest checkpoint and the folder of its files, or None."""
        if not self.checkpoints.is_dir():
            return None
        for path in sorted(self.checkpoints.iterdir(), reverse=True):
            if path.name.isdigit():
                found = self._read(f"checkpoints/{path.name}/checkpoint.json", Checkpoint)
                if found is not None:
                    return found, path / "files"
        return None

    def save(self, step: int, write: Callable[[Path], object], *, data_sha256: str = "") -> None:
        """Keep a checkpoint, all of it or nothing, and remove all but the newest.

        Args:
            step: Its step.
            write: Fills the folder that it is given.
            data_sha256: Digest of what is learned from.

        Raises:
            OSError: If it cannot be written; those before are untouched.
        """
        part = self.checkpoints / f".{step}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            (part / "files").mkdir(parents=True)
            write(part / "files")
            size = self._sync_metrics()
            sync_tree(part / "files")
            known = Checkpoint(step=step, metrics_size=size, data_sha256=data_sha256)
            write_durably(part / "checkpoint.json", known.model_dump_json().encode())
            final = self.checkpoints / f"{step:0{_DIGITS}d}"
            shutil.rmtree(final, ignore_errors=True)
            part.rename(final)
            sync_folder(self.checkpoints)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        self._remove_old()

    def _sync_metrics(self) -> int:
        """Write the metrics so far to the disk; returns their size in bytes."""
        if not self.metrics_file.exists():
            return 0
        with self.metrics_file.open("rb") as stream:
            os.fsync(stream.fileno())
            return os.fstat(stream.fileno()).st_size

    def begin(self) -> Path | None:
        """Go back to the newest checkpoint: what was kept after it is computed again.

        Returns:
            The checkpoint's files, or None at the start.

        Raises:
            OSError: If the folder cannot be written.
        """
        found = self.checkpoint()
        keep = 0 if found is None else found[0].metrics_size
        with self.metrics_file.open("ab") as stream:
            stream.truncate(min(keep, os.fstat(stream.fileno()).st_size))
            os.fsync(stream.fileno())
        for left in self.checkpoints.glob(".*.part"):
            shutil.rmtree(left)
        for left in self.path.glob(".state.*"):
            left.unlink(missing_ok=True)
        self._remove_old()
        shutil.rmtree(self.path / ".artefacts", ignore_errors=True)
        shutil.rmtree(self.artefacts, ignore_errors=True)
        (self.path / ".artefacts").mkdir()
        return None if found is None else found[1]

    @property
    def unfinished(self) -> Path:
        """Where artefacts are while they are being made."""
        return self.path / ".artefacts"

    def finish(self) -> None:
        """Put the artefacts in their place, all at once."""
        sync_tree(self.unfinished)
        self.unfinished.rename(self.artefacts)
        sync_folder(self.path)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path)

    @contextlib.contextmanager
    def held(self, *, patience: float = 0.0) -> Iterator[bool]:
        """Hold the folder until the block or this process ends; yields whether nobody else holds it.

        Args:
            patience: Seconds to wait for somebody else who holds it.
        """
        deadline = time.monotonic() + patience
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not (alone := _locked(handle)) and time.monotonic() < deadline:
                time.sleep(0.05)
            yield alone
        finally:
            os.close(handle)

    def _remove_old(self) -> None:
        whole = sorted(path for path in self.checkpoints.iterdir() if path.name.isdigit())
        for old in whole[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old, ignore_errors=True)

    def _read(self, name: str, kind: type[M]) -> M | None:
        path = self.path / name
        try:
            content = path.read_bytes().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise JobFolderError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        if not content:
            return None
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise JobFolderError(f"{str(path)!r} cannot be read: {first['msg']}") from error


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_tree(folder: Path) -> None:
    """Have all files of a folder, and their names, on the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            continue
        if path.is_dir():
            sync_folder(path)
        else:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    sync_folder(folder)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or str(path)
        raise JobFolderError(f"{str(place)!r} cannot be written: {error.strerror}") from error
