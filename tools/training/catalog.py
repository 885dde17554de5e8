"""Which trainers there are; one is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from watchkeeper.tools.errors import UnknownTrainerError
from watchkeeper.tools.training.interface import Trainer

_TRAINERS: dict[str, str] = {
    "disk-forecast": "watchkeeper.tools.training.disk_forecast:DiskForecastTrainer",
    "metric-anomaly": "watchkeeper.tools.training.metric_anomaly:MetricAnomalyTrainer",
    "agent-tuning": "watchkeeper.tools.training.agent_tuning:AgentTuning",
    "log-classifier": "watchkeeper.tools.training.log_classifier:LogClassifier",
    "text-classifier": "watchkeeper.tools.training.text_classifier:TextClassifier",
}
"""Name of each trainer and where its class is, ``module:Class``."""


def trainer_names() -> tuple[str, ...]:
    """Return the names of all trainers."""
    return tuple(sorted(_TRAINERS))


def trainer_of(name: str) -> Trainer[Any]:
    """Return a trainer by its name, or one of a user's own as ``module:Class``.

    Raises:
        UnknownTrainerError: If there is none.
        MissingExtraError: If it needs an extra that is not installed.
    """
    if ":" in name:
        return _own_trainer(name)
    if name not in _TRAINERS:
        raise UnknownTrainerError(
            f"there is no trainer {name!r}; there are: {', '.join(trainer_names()) or 'none'}"
        )
    module, _, class_name = _TRAINERS[name].partition(":")
    made: Trainer[Any] = getattr(import_module(module), class_name)()
    return made


def _own_trainer(place: str) -> Trainer[Any]:
    module, _, class_name = place.partition(":")
    try:
        found = getattr(import_module(module), class_name)
    except ModuleNotFoundError as error:
        raise UnknownTrainerError(
            f"trainer {place!r}: module {error.name!r} is not found; install it, or name the folder that it "
            "is in as `modules`"
        ) from error
    except AttributeError as error:
        raise UnknownTrainerError(f"trainer {place!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Trainer)):
        raise UnknownTrainerError(f"trainer {place!r} is no subclass of watchkeeper.tools.training.Trainer")
    made: Trainer[Any] = found()
    return made
