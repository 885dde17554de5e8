"""Training jobs as actions: submitted, cancelled and resumed."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import JsonValue

from watchkeeper.tools.action import ActionPlan, Outcome, ProbeAnswer, Reversibility, Verification
from watchkeeper.tools.actions.observed import ObservedAction
from watchkeeper.tools.errors import (
    ApplyError,
    CollectError,
    DriftError,
    JobStateError,
    PlanError,
    RollbackError,
    ToolError,
)
from watchkeeper.tools.fact import Arguments, Raw
from watchkeeper.tools.facts.job import PASSING, JobArguments, board_of
from watchkeeper.tools.host import Target
from watchkeeper.tools.schema import known
from watchkeeper.tools.training.record import JobBoard, TrainingJob, TrainingStatus
from watchkeeper.tools.training.spec import JobSpec

BY = "watchkeeper"
"""In whose name agents submit, cancel and resume."""

UNATTENDED = 2
"""How often agents may resume a job before a person must look at it."""


class SubmitArguments(Arguments):
    """Which of the jobs that the inventory names."""

    spec: Annotated[str, known("jobspec", description="name of the training job")]


class JobSubmit(ObservedAction[SubmitArguments]):
    """Submit a training job that the inventory names; workers do it when there is room."""

    name: ClassVar[str] = "job.submit"
    summary: ClassVar[str] = "have a predictor trained"
    reversibility: ClassVar[Reversibility] = Reversibility.COMPENSABLE
    arguments_type = SubmitArguments

    def observe(self, target: Target, arguments: SubmitArguments) -> Raw:
        """Read what is to be done.

        Raises:
            PlanError: If the host has no such job, or its file cannot be read.
        """
        board = _board(target, self.name)
        spec = _known(target, arguments.spec)
        refused = board.refusal(spec)
        return {"spec": spec.model_dump(mode="json"), "data": spec.data.exists(), "refused": refused}

    def plan_from(self, raw: Raw, arguments: SubmitArguments, *, key: str) -> ActionPlan:
        """Say what would be trained.

        Raises:
            PlanError: If its data are not there, or it could never begin.
        """
        spec = JobSpec.model_validate(raw["spec"])
        if raw.get("refused"):
            raise PlanError(f"job {arguments.spec!r}: {raw['refused']}")
        if not raw["data"]:
            raise PlanError(f"job {arguments.spec!r}: its data {str(spec.data)!r} are not there")
        limits = spec.limits
        return ActionPlan(
            key=key,
            summary=f"submit training job {spec.name}: {spec.trainer} on {spec.data}",
            diff=(
                f"training job {spec.name}: none -> queued\n"
                f"  trainer {spec.trainer}, seed {spec.seed}\n"
                f"  at most {limits.seconds:g} s, {limits.memory / 1e9:.2f} GB, {limits.threads} threads, "
                f"{limits.gpus} GPUs\n"
            ),
            preconditions={"spec": spec.digest},
            details={"spec": arguments.spec, "digest": spec.digest},
            risk="the time that it computed until it is cancelled does not come back",
        )

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Submit it under the plan's key, so that it is submitted once.

        Raises:
            DriftError: If what is to be done was changed since.
            ApplyError: If it cannot be submitted.
        """
        board = _applying(target, self.name)
        try:
            spec = _known(target, str(plan.details["spec"]))
        except PlanError as error:
            raise DriftError(str(error)) from error
        if spec.digest != plan.details["digest"]:
            raise DriftError(f"job {plan.details['spec']!r} was changed since the plan was made")
        try:
            job = board.submit(spec, by=BY, key=plan.key)
        except ToolError as error:
            raise ApplyError(str(error)) from error
        return Outcome(detail=f"training job {job.id} ({job.name}) is queued", changed=(job.id,))

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Look whether it was submitted and was not given up at once."""
        job = board_of(target, self.name).submitted_under(plan.key)
        if job is None:
            return Verification(ok=False, detail="no such training job was submitted")
        bad = job.status in {TrainingStatus.FAILED, TrainingStatus.CANCELLED}
        return Verification(ok=not bad, detail=f"training job {job.id} is {job.status.value}")

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """Look whether it was submitted."""
        job = board_of(target, self.name).submitted_under(plan.key)
        return ProbeAnswer.NOT_DONE if job is None else ProbeAnswer.DONE

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
        """Cancel it.

        Raises:
            RollbackError: If it is done already, or jobs cannot be reached.
        """
        board = _undoing(target, self.name)
        job = board.submitted_under(plan.key)
        if job is None:
            return Outcome(detail="no such training job was submitted")
        return _cancelled(board, job)


class JobCancel(ObservedAction[JobArguments]):
    """Cancel a training job; it can go on from its last checkpoint later."""

    name: ClassVar[str] = "job.cancel"
    summary: ClassVar[str] = "cancel a training job"
    reversibility: ClassVar[Reversibility] = Reversibility.COMPENSABLE
    arguments_type = JobArguments

    def observe(self, target: Target, arguments: JobArguments) -> Raw:
        """Look at the job.

        Raises:
            PlanError: If there is none of that id.
        """
        return _observed(target, self.name, arguments.job)

    def plan_from(self, raw: Raw, arguments: JobArguments, *, key: str) -> ActionPlan:
        """Say what would be cancelled.

        Raises:
            PlanError: If it is done.
        """
        job = _of(raw)
        if job.status is TrainingStatus.DONE:
            raise PlanError(f"training job {job.id} is done: there is nothing to cancel")
        if not job.status.live:
            return ActionPlan(key=key, summary=f"training job {arguments.job} is {job.status.value} already")
        return ActionPlan(
            key=key,
            summary=f"cancel training job {job.name} ({job.id})",
            diff=f"training job {job.name} ({job.id}): {job.status.value} -> cancelled\n",
            preconditions=_identity(job),
            details=_identity(job),
            risk="what it computed since its last checkpoint is computed again if it is resumed",
        )

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Cancel it.

        Raises:
            DriftError: If it has ended since, or was resumed by somebody.
            ApplyError: If jobs cannot be reached.
        """
        board = _applying(target, self.name)
        job = _unchanged(board, plan)
        if not job.status.live:
            raise DriftError(f"training job {job.id} is {job.status.value} since the plan was made")
        board.cancel(job.id, by=BY)
        return Outcome(detail=f"training job {job.id} is cancelled", changed=(job.id,))

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Look whether it is cancelled."""
        job = _named(board_of(target, self.name), plan)
        status = TrainingStatus.CANCELLED
        return Verification(ok=job.status is status, detail=f"training job {job.id} is {job.status.value}")

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """Look whether it was cancelled, also where it was resumed since."""
        job = _named(board_of(target, self.name), plan)
        if job.generation != plan.details["generation"]:
            return ProbeAnswer.DONE
        return ProbeAnswer.DONE if job.status is TrainingStatus.CANCELLED else ProbeAnswer.NOT_DONE

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
        """Have it go on from its last checkpoint.

        Raises:
            RollbackError: If it has ended otherwise, or jobs cannot be reached.
        """
        board = _undoing(target, self.name)
        try:
            job = board.resume(str(plan.details["job"]), by=BY)
        except JobStateError as error:
            raise RollbackError(str(error)) from error
        return Outcome(detail=f"training job {job.id} is {job.status.value} again", changed=(job.id,))


class JobResume(ObservedAction[JobArguments]):
    """Have a training job that failed or was cancelled go on from its last checkpoint."""

    name: ClassVar[str] = "job.resume"
    summary: ClassVar[str] = "have a training job go on from its last checkpoint"
    reversibility: ClassVar[Reversibility] = Reversibility.COMPENSABLE
    arguments_type = JobArguments

    def observe(self, target: Target, arguments: JobArguments) -> Raw:
        """Look at the job.

        Raises:
            PlanError: If there is none of that id.
        """
        return _observed(target, self.name, arguments.job)

    def plan_from(self, raw: Raw, arguments: JobArguments, *, key: str) -> ActionPlan:
        """Say what would go on.

        Raises:
            PlanError: If it would fail again in the same way, or was resumed by agents often enough.
        """
        job = _of(raw)
        if job.status.live:
            return ActionPlan(key=key, summary=f"training job {arguments.job} is {job.status.value} already")
        if job.status is TrainingStatus.DONE:
            raise PlanError(f"training job {job.id} is done: there is nothing to go on with")
        if job.status is TrainingStatus.FAILED and job.how not in PASSING:
            raise PlanError(
                f"training job {job.id} would fail again in the same way ({job.how}): a person must "
                "change its data, parameters or limits, and submit it anew"
            )
        if job.unattended >= UNATTENDED:
            raise PlanError(
                f"training job {job.id} failed again after it was resumed {job.unattended} times: a person "
                "must look at it"
            )
        return ActionPlan(
            key=key,
            summary=f"resume training job {job.name} ({job.id})",
            diff=f"training job {job.name} ({job.id}): {job.status.value} -> queued\n",
            preconditions=_identity(job),
            details=_identity(job),
            risk="the time that it computes does not come back",
        )

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Resume it.

        Raises:
            DriftError: If somebody resumed it since.
            ApplyError: If jobs cannot be reached.
        """
        board = _applying(target, self.name)
        job = _unchanged(board, plan)
        try:
            job = board.resume(job.id, by=BY)
        except JobStateError as error:
            raise DriftError(str(error)) from error
        return Outcome(detail=f"training job {job.id} is queued", changed=(job.id,))

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Look whether it goes on, or has done so."""
        job = _named(board_of(target, self.name), plan)
        well = job.status.live or job.status is TrainingStatus.DONE
        return Verification(ok=well, detail=f"training job {job.id} is {job.status.value}")

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """Look whether it was resumed, whatever became of it since."""
        job = _named(board_of(target, self.name), plan)
        same = job.generation == plan.details["generation"]
        return ProbeAnswer.NOT_DONE if same else ProbeAnswer.DONE

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
        """Cancel it.

        Raises:
            RollbackError: If it is done already, or jobs cannot be reached.
        """
        board = _undoing(target, self.name)
        job = board.find(str(plan.details["job"]))
        if job is None:
            raise RollbackError(f"training job {plan.details['job']!r} is not there any more")
        return _cancelled(board, job)


def _board(target: Target, tool: str) -> JobBoard:
    try:
        return board_of(target, tool)
    except CollectError as error:
        raise PlanError(str(error)) from error


def _applying(target: Target, tool: str) -> JobBoard:
    try:
        return board_of(target, tool)
    except CollectError as error:
        raise ApplyError(str(error)) from error


def _undoing(target: Target, tool: str) -> JobBoard:
    try:
        return board_of(target, tool)
    except CollectError as error:
        raise RollbackError(str(error)) from error


def _known(target: Target, name: str) -> JobSpec:
    """Read a job that the inventory names.

    Raises:
        PlanError: If the host has no such job, or its file cannot be read.
    """
    for job in target.spec.jobs:
        if job.name == name:
            try:
                return JobSpec.load(job.spec)
            except ToolError as error:
                raise PlanError(str(error)) from error
    known_ones = ", ".join(job.name for job in target.spec.jobs) or "none"
    raise PlanError(f"job {name!r:.80} is not on host {target.spec.name!r} (it has: {known_ones})")


def _observed(target: Target, tool: str, job_id: str) -> Raw:
    job = _board(target, tool).find(job_id)
    if job is None:
        raise PlanError(f"there is no training job {job_id!r:.40}: look at job.list")
    return {"job": job.model_dump(mode="json")}


def _of(raw: Raw) -> TrainingJob:
    return TrainingJob.model_validate(raw["job"])


def _identity(job: TrainingJob) -> dict[str, JsonValue]:
    return {"job": job.id, "generation": job.generation}


def _named(board: JobBoard, plan: ActionPlan) -> TrainingJob:
    """Return the job of a plan.

    Raises:
        CollectError: If it is not there any more.
    """
    job = board.find(str(plan.details["job"]))
    if job is None:
        raise CollectError(f"training job {plan.details['job']!r} is not there any more")
    return job


def _unchanged(board: JobBoard, plan: ActionPlan) -> TrainingJob:
    job = board.find(str(plan.details["job"]))
    if job is None or job.generation != plan.details["generation"]:
        raise DriftError(
            f"training job {plan.details['job']!r} was resumed or removed since the plan was made"
        )
    return job


def _cancelled(board: JobBoard, job: TrainingJob) -> Outcome:
    if job.status is TrainingStatus.DONE:
        raise RollbackError(
            f"training job {job.id} is done: what it made is kept, and nobody uses it by itself"
        )
    board.cancel(job.id, by=BY, reason="taken back")
    return Outcome(detail=f"training job {job.id} is cancelled", changed=(job.id,))
