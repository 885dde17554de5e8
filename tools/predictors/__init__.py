"""Predictors: trained models that are not language models, and the folders that they are kept in."""

from __future__ import annotations

from watchkeeper.tools.predictors.artefact import (
    Manifest,
    open_predictor,
    read_manifest,
    register_kind,
    write_manifest,
)
from watchkeeper.tools.predictors.interface import Predictor

__all__ = ["Manifest", "Predictor", "open_predictor", "read_manifest", "register_kind", "write_manifest"]
