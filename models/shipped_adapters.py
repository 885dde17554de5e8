"""The adapters that come with Watchkeeper, by the model that they are for."""

from __future__ import annotations

import re
from pathlib import Path

SHIPPED = Path(__file__).parent / "shipped"
"""Their folders, in folders of their models' ids."""

DEFAULT_ADAPTER = "diagnosis"
"""The one with which root causes are found where nothing else is said."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""What adapters, and models of the catalog, may be called."""


def adapters_in(folder: Path) -> dict[str, Path]:
    """The folders of adapters that lie in a folder, by name."""
    if not folder.is_dir():
        return {}
    return {path.name: path for path in sorted(folder.iterdir()) if NAME.fullmatch(path.name)}


def shipped_adapters(model_id: str) -> dict[str, Path]:
    """The folders of the adapters that come with Watchkeeper for a model, by name."""
    return adapters_in(SHIPPED / model_id) if NAME.fullmatch(model_id) else {}


def is_shipped(folder: Path) -> bool:
    """Whether an adapter comes with Watchkeeper, and cannot be removed."""
    return folder.is_relative_to(SHIPPED)
