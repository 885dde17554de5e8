"""What is looked at before a job is submitted, so that a mistake is told at once and not by a worker."""

from __future__ import annotations

from importlib.util import find_spec

from pydantic import ValidationError

from watchkeeper.tools.errors import JobSpecError, MissingExtraError
from watchkeeper.tools.training.catalog import trainer_of
from watchkeeper.tools.training.spec import JobSpec


def check_spec(spec: JobSpec, *, elsewhere: bool = False) -> None:
    """Check that there are such data, such a trainer, and parameters that it takes.

    A user's own trainer is first imported by the process that trains, as whoever the workers are.

    Args:
        spec: The job.
        elsewhere: Whether a worker on another machine may do it, which may have what is missing here.

    Raises:
        JobSpecError: If data or parameters are not right.
        UnknownTrainerError: If there is no such trainer.
        MissingExtraError: If it needs an extra that is not installed.
    """
    if not spec.data.exists():
        raise JobSpecError(f"job {spec.name!r}: data: {str(spec.data)!r} is not there")
    if spec.modules is not None and not spec.modules.is_dir():
        raise JobSpecError(f"job {spec.name!r}: modules: {str(spec.modules)!r} is no folder")
    if ":" in spec.trainer:
        return
    trainer = trainer_of(spec.trainer)
    here = spec.runs_on == "here" and not elsewhere
    if here and trainer.extra is not None and find_spec(trainer.extra[1]) is None:
        raise MissingExtraError(
            f"job {spec.name!r}: trainer {spec.trainer!r} needs "
            f"`pip install 'watchkeeper[{trainer.extra[0]}]'`"
        )
    try:
        trainer.parse_parameters(spec.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "parameters"
        raise JobSpecError(
            f"job {spec.name!r}: parameter {place} of trainer {spec.trainer!r}: {first['msg']} "
            f"(got {first['input']!r:.80})"
        ) from error
