"""Where state and models live: one folder outside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "WATCHKEEPER_HOME"


def home_folder() -> Path:
    """The folder that holds everything Watchkeeper keeps.

    Returns:
        ``WATCHKEEPER_HOME`` where set, else the platform's folder for a user's data. It need not exist.
    """
    chosen = os.environ.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_data_path

    return user_data_path("watchkeeper", appauthor=False)


def models_folder(home: Path | None = None) -> Path:
    """The folder of the cached models, one sub-folder per model.

    Args:
        home: The home to look in; the default one where ``None``.
    """
    return (home if home is not None else home_folder()) / "models"
