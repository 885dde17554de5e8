"""Versions of predictors: kept with their lineage, named by aliases, promoted and restored."""

from __future__ import annotations

from watchkeeper.tools.versions.records import (
    CHALLENGER,
    CHAMPION,
    JobRecord,
    Move,
    MoveState,
    Notes,
    Version,
    VersionRecord,
)
from watchkeeper.tools.versions.versions import Versions

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "JobRecord",
    "Move",
    "MoveState",
    "Notes",
    "Version",
    "VersionRecord",
    "Versions",
]
