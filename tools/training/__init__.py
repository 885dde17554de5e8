"""Training: what a trainer is given and gives back, and which trainers there are."""

from __future__ import annotations

from watchkeeper.tools.training.catalog import trainer_names, trainer_of
from watchkeeper.tools.training.interface import Evaluation, Trainer, TrainingRun

__all__ = ["Evaluation", "Trainer", "TrainingRun", "trainer_names", "trainer_of"]
