"""Series that are measured on a host: which predictor knows one, which answered, and its last points."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from watchkeeper.tools.errors import CollectError, DataError
from watchkeeper.tools.inventory import HostSpec, Metric
from watchkeeper.tools.local import open_regular, reason
from watchkeeper.tools.text import shown_path, visible

if TYPE_CHECKING:
    from watchkeeper.tools.predictors.series import Series

LARGEST = 64 * 1024 * 1024  # bytes of a file: years of points, and under a second to read


class AnsweredBy(BaseModel):
    """The version of a predictor that answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictor: str
    version: int

    def __str__(self) -> str:
        return f"version {self.version} of {self.predictor}"


def metric_of(spec: HostSpec, path: str, kind: str) -> Metric:
    """Return what the inventory says of a series.

    Raises:
        CollectError: If it names no such series, or one with a predictor of another kind.
    """
    for service in spec.services:
        for metric in service.metrics:
            if str(metric.path) == path and metric.kind == kind:
                return metric
    raise CollectError(
        f"{shown_path(path)} is no series of host {spec.name!r} with a predictor of kind {kind!r}: add it "
        "under metrics in the inventory"
    )


def read_series(metric: Metric) -> Series:
    """Read a series as it is now; a repeated time or a line that does not change is no mistake here.

    Raises:
        CollectError: If it cannot be read.
    """
    from watchkeeper.tools.predictors.series import SeriesFormat, parse

    form = SeriesFormat(least_rows=2, repeated_times="keep", constant="keep")
    try:
        raw = _read(metric.path)
        (series,) = parse(raw, form, path=metric.path, name=metric.path.name)
    except OSError as error:
        raise CollectError(f"{shown_path(str(metric.path))} cannot be read: {reason(error)}") from error
    except DataError as error:
        raise CollectError(visible(str(error))) from error
    return series


def _read(path: Path) -> bytes:
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise CollectError(f"{shown_path(str(path))} is larger than {LARGEST} bytes: let it be rotated")
    # The last line may be half written.
    return raw[: raw.rfind(b"\n") + 1]
