"""The folder that a predictor is kept in: a manifest, and the files of its kind."""

from __future__ import annotations

from datetime import datetime
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from watchkeeper.tools.errors import ArtefactError
from watchkeeper.tools.predictors.interface import Predictor

MANIFEST = "predictor.json"

_KINDS: dict[str, str] = {
    "anomaly": "watchkeeper.tools.predictors.anomaly:AnomalyPredictor",
    "disk-forecast": "watchkeeper.tools.predictors.disk_forecast:DiskForecastPredictor",
    "log": "watchkeeper.tools.predictors.logs:LogPredictor",
    "text": "watchkeeper.tools.predictors.text:TextPredictor",
}
"""Each kind of predictor and what loads it from its folder, ``module:Class`` with a class method ``load``."""


class Manifest(BaseModel):
    """What a predictor is and where it comes from.

    Attributes:
        kind: What loads it.
        trainer: What made it.
        created_at: When.
        parameters: Of the trainer.
        seed: Of the run.
        data_sha256: Digest of what it learned from.
        rows: Examples that it learned from.
        groups: Columns by which it is scored apart.
        versions: Versions of the libraries that made it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    trainer: str
    created_at: datetime
    parameters: dict[str, JsonValue] = {}
    seed: int = 0
    data_sha256: str = ""
    rows: int = 0
    groups: tuple[str, ...] = ()
    versions: dict[str, str] = {}


def register_kind(kind: str, place: str) -> None:
    """Make a kind of predictor of a program's own known in this process.

    Args:
        kind: Its name, as manifests give it.
        place: What loads it, ``module:Class``: a `Predictor` with a class method ``load(folder)``. The module
            is imported when the first predictor of the kind is opened.

    Raises:
        ValueError: If another class is known by that name.
    """
    if _KINDS.setdefault(kind, place) != place:
        raise ValueError(f"kind {kind!r} is loaded by {_KINDS[kind]!r} already")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, last of all files: a folder without one holds no predictor."""
    part = folder / f"{MANIFEST}.part"
    part.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    part.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest.

    Raises:
        ArtefactError: If the folder holds no predictor.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ArtefactError(f"{folder} holds no predictor: {MANIFEST} is missing") from None
    except (OSError, ValidationError) as error:
        raise ArtefactError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def open_predictor(folder: Path) -> Predictor:
    """Load a predictor of whatever kind.

    Raises:
        ArtefactError: If the folder holds none, or one of a kind that is not known here.
        MissingExtraError: If its kind needs an extra that is not installed.
    """
    manifest = read_manifest(folder)
    if manifest.kind not in _KINDS:
        known = ", ".join(sorted(_KINDS)) or "none"
        raise ArtefactError(
            f"{folder} holds a predictor of the unknown kind {manifest.kind!r}; known are: {known}"
        )
    module, _, class_name = _KINDS[manifest.kind].partition(":")
    made: Predictor = getattr(import_module(module), class_name).load(folder)
    return made
