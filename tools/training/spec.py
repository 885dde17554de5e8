"""What a training job is to do: its trainer, data, parameters and limits; from YAML or from options."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from watchkeeper.tools.documents import DocumentError, read_document
from watchkeeper.tools.errors import JobSpecError
from watchkeeper.tools.inventory import Name

_DAY = 86_400.0
_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")

TRAINER = r"^[A-Za-z_][\w.-]*(:[A-Za-z_]\w*)?$"
"""A trainer of the catalog, or ``module:Class`` for one of a user's own."""


def parse_size(value: object) -> object:
    """Read a number of bytes such as ``"2 GB"`` or ``"512 MiB"``; what is no text is returned as it is.

    Raises:
        ValueError: If it says no size.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None or found[2].lower() not in _UNITS:
        raise ValueError("a size is expected, such as 2 GB, 512 MiB or a number of bytes")
    return int(float(found[1]) * _UNITS[found[2].lower()])


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobLimits(_Strict):
    """What a job may use; it is ended where it uses more.

    Attributes:
        seconds: Time, all of its attempts taken together.
        memory: Bytes that its processes may hold at a time; jobs wait until there is so much for them.
        threads: Processors that it may compute on.
        gpus: GPUs that it needs.
    """

    seconds: float = Field(default=_DAY, gt=0, le=366 * _DAY, allow_inf_nan=False)
    memory: Annotated[int, BeforeValidator(parse_size)] = Field(default=4 * 10**9, ge=10**7, le=2**50)
    threads: int = Field(default=1, ge=1, le=4096)
    gpus: int = Field(default=0, ge=0, le=64)


class JobSpec(_Strict):
    """What a job is to do.

    Attributes:
        name: What it is called, for people; it need not be unique.
        trainer: Name of a trainer of the catalog, or ``module:Class`` for one of a user's own.
        modules: Folder in which a user's own trainer is found, where it is not installed.
        data: File or folder to learn from.
        parameters: Parameters of the trainer.
        seed: Seed of everything that is drawn by chance.
        limits: What it may use.
        retries: Times that it is begun again, from its last checkpoint, where its process was killed or
            failed for no reason that would hold again.
        launcher: What starts its process: ``accelerate launch``, or Python alone, which begins two seconds
            sooner and serves trainers that use no GPU.
        runs_on: This machine, or the Ray cluster of the settings.
    """

    name: Name
    trainer: str = Field(pattern=TRAINER, max_length=200)
    modules: Path | None = None
    data: Path
    parameters: dict[str, JsonValue] = {}
    seed: int = Field(default=0, ge=0, lt=2**32)
    limits: JobLimits = JobLimits()
    retries: int = Field(default=2, ge=0, le=5)
    launcher: Literal["accelerate", "python"] = "accelerate"
    runs_on: Literal["here", "ray"] = "here"

    @classmethod
    def load(cls, path: Path) -> JobSpec:
        """Read a job from a YAML file; relative paths in it are relative to it.

        Raises:
            JobSpecError: With file, line and value, if it is missing, not YAML, or describes no job.
        """
        try:
            document = read_document(path, "job")
        except DocumentError as error:
            raise JobSpecError(str(error)) from error
        try:
            read = cls.model_validate(document.data)
        except ValidationError as error:
            raise JobSpecError(f"job {document.explain(error)}") from error
        return read._below(path.parent)

    @classmethod
    def of_options(cls, values: Mapping[str, Any], base: JobSpec | None = None) -> JobSpec:
        """Make a job from the options of a command; relative paths are relative to the current folder.

        Args:
            values: Fields by name, with those of the limits as ``limits.memory``; None means not given.
                Parameters are added to those of the base.
            base: What holds where an option was not given.

        Raises:
            JobSpecError: With the option and the value, if they describe no job.
        """
        fields: dict[str, Any] = base.model_dump() if base else {}
        for name, value in values.items():
            if value is None:
                continue
            if name == "parameters":
                fields[name] = {**fields.get(name, {}), **value}
                continue
            outer, _, inner = name.partition(".")
            if inner:
                fields[outer] = {**fields.get(outer, {}), inner: value}
            else:
                fields[outer] = value
        last = str(fields.get("trainer", "")).rpartition(":")[2]
        fields.setdefault("name", last if _PLAIN.fullmatch(last) else "job")
        try:
            return cls.model_validate(fields)._below(Path())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            got = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
            raise JobSpecError(f"job: {place}: {first['msg']}{got}") from error

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def _below(self, folder: Path) -> JobSpec:
        placed = {"data": (folder / self.data.expanduser()).absolute()}
        if self.modules is not None:
            placed["modules"] = (folder / self.modules.expanduser()).absolute()
        return self.model_copy(update=placed)


def parse_parameters(texts: list[str]) -> dict[str, JsonValue]:
    """Read parameters as a command line gives them, ``name=value`` with values in YAML.

    Raises:
        JobSpecError: If one has no name or its value is not YAML.
    """
    read: dict[str, JsonValue] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise JobSpecError(f"parameter {text!r}: name=value is expected, such as epochs=20")
        try:
            read[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise JobSpecError(f"parameter {text!r}: the value is not YAML") from error
    return read
