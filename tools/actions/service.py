"""Starting, stopping and restarting a service through its supervisor."""

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from typing import Annotated, ClassVar

from watchkeeper.tools.action import ActionPlan, ActionView, Outcome, ProbeAnswer, Reversibility, Verification
from watchkeeper.tools.actions.observed import ObservedAction
from watchkeeper.tools.errors import ApplyError, CollectError, DriftError, PlanError, RollbackError
from watchkeeper.tools.fact import Arguments, Raw
from watchkeeper.tools.host import Target
from watchkeeper.tools.schema import known
from watchkeeper.tools.supervisors import RunState, ServiceState, Supervisor, settle, supervisor_of

VERIFY_SECONDS = 10.0
HOLD_SECONDS = 1.0
FLAPPING_RESTARTS = 2  # within the supervisor's window of ten minutes


class ServiceArguments(Arguments):
    """Which service."""

    service: Annotated[str, known("service", description="name of the service")]


class _ServiceAction(ObservedAction[ServiceArguments]):
    arguments_type = ServiceArguments
    reversibility: ClassVar[Reversibility] = Reversibility.COMPENSABLE
    up_after: ClassVar[bool]

    def observe(self, target: Target, arguments: ServiceArguments) -> Raw:
        """Ask the service's supervisor for its state.

        Raises:
            PlanError: If the supervisor cannot be asked.
            InventoryError: If the host has no such service.
        """
        try:
            state = supervisor_of(target, arguments.service).status()
        except CollectError as error:
            raise PlanError(f"{self.name} of {arguments.service!r} cannot be planned: {error}") from error
        return {"state": state.model_dump(mode="json")}

    def plan_from(self, raw: Raw, arguments: ServiceArguments, *, key: str) -> ActionPlan:
        """Say how the state would change.

        Raises:
            PlanError: If the service is neither up nor down at this moment.
        """
        before = ServiceState.model_validate(raw["state"])
        name = arguments.service
        if not before.is_up and not before.is_down:
            raise PlanError(
                f"service {name!r} is neither up nor down at this moment (it may be stopping): plan again"
            )
        diff, summary, risk = self._change(name, before)
        return ActionPlan(
            key=key,
            summary=summary,
            diff=diff,
            preconditions={"service": name, "run_state": _coarse(before)},
            details={"service": name, "before": before.model_dump(mode="json")},
            risk=risk,
        )

    @abstractmethod
    def _change(self, name: str, before: ServiceState) -> tuple[str, str, str]:
        """Return the diff, the summary and the risk."""

    def view(self, target: Target, plan: ActionPlan) -> ActionView:
        """Show the state that the plan found, and the services that need this one."""
        name, before = _service(plan), _before(plan)
        since = "" if before.seconds is None else f" for {timedelta(seconds=int(before.seconds))}"
        exit_ = f"; its last process ended with: {before.exit}" if before.exit else ""
        needing = [other.name for other in target.spec.services if name in other.depends_on]
        return ActionView(
            undo=f"{'started' if before.is_up else 'stopped'} again where it is not; {plan.risk}",
            lines=(
                ("state", f"{before.state}{since}{_pid(before)}{exit_}"),
                ("needed by", ", ".join(needing) or "no other service of this host"),
            ),
        )

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Wait until the service is as wanted and stays so for a second; at most ten."""
        name = _service(plan)
        wanted = (lambda s: s.state is RunState.RUNNING) if self.up_after else (lambda s: s.is_down)
        try:
            supervisor = supervisor_of(target, name)
            hopeless = (lambda s: s.is_down) if self.up_after else None
            state, ok = settle(
                supervisor, wanted, timeout=VERIFY_SECONDS, hold=HOLD_SECONDS, hopeless=hopeless
            )
        except CollectError as error:
            return Verification(ok=False, detail=str(error))
        goal = "is running" if self.up_after else "is down"
        if ok:
            return Verification(ok=True, detail=f"service {name!r} {goal}{_pid(state)}")
        how = f", its last process ended with: {state.exit}" if state.exit else ""
        return Verification(
            ok=False, detail=f"service {name!r} does not stay as wanted: it is {state.state}{how}"
        )

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
        """Bring the service back to the run state that the plan found; safe to repeat.

        Raises:
            RollbackError: If it does not get there.
        """
        name, before = _service(plan), _before(plan)
        try:
            supervisor = supervisor_of(target, name)
            state = _moment_of_rest(supervisor)
            if before.is_up == state.is_up and state.state is not RunState.UNKNOWN:
                return Outcome(detail=f"service {name!r} is {_coarse(state)}, as it was before")
            if before.is_up:
                supervisor.start()
                state, _ = settle(supervisor, lambda s: s.is_up, timeout=VERIFY_SECONDS)
            else:
                supervisor.stop()
                state, _ = settle(supervisor, lambda s: s.is_down, timeout=VERIFY_SECONDS)
        except (ApplyError, CollectError) as error:
            raise RollbackError(f"service {name!r} could not be brought back: {error}") from error
        if state.is_up != before.is_up:
            raise RollbackError(
                f"service {name!r} was {before.state} and is {state.state} now: look at its log and decide"
            )
        return Outcome(detail=f"service {name!r} is {_coarse(state)} again{_pid(state)}", changed=(name,))

    def _ready(self, target: Target, plan: ActionPlan) -> Supervisor:
        name = _service(plan)
        supervisor = supervisor_of(target, name)
        state = supervisor.status()
        expected = plan.preconditions["run_state"]
        if _coarse(state) != expected:
            raise DriftError(f"service {name!r} was {expected!r} when planned and is {state.state} now")
        return supervisor


class ServiceStart(_ServiceAction):
    """Start a service that is down; rollback stops it again."""

    name: ClassVar[str] = "service.start"
    summary: ClassVar[str] = "start a stopped service"
    up_after: ClassVar[bool] = True

    def _change(self, name: str, before: ServiceState) -> tuple[str, str, str]:
        if before.is_up:
            return "", f"service {name} is {before.state} already", ""
        return (
            f"service {name}: {before.state} -> running\n",
            f"start service {name}",
            "what it does while it runs is not undone by stopping it again",
        )

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Start the service.

        Raises:
            DriftError: If it is up already.
            ApplyError: If its supervisor refuses or cannot be asked.
        """
        name = _service(plan)
        try:
            self._ready(target, plan).start()
        except CollectError as error:
            raise ApplyError(f"service {name!r} could not be started: {error}") from error
        return Outcome(detail=f"service {name!r} was started", changed=(name,))

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """Look whether it was started since the plan: it is up, or has a later process that ended."""
        try:
            state = _moment_of_rest(supervisor_of(target, _service(plan)))
        except CollectError:
            return ProbeAnswer.UNKNOWN
        if state.is_up or state.started != _before(plan).started:
            return ProbeAnswer.DONE
        return ProbeAnswer.NOT_DONE if state.is_down else ProbeAnswer.UNKNOWN


class ServiceStop(_ServiceAction):
    """Stop a service that is up; rollback starts it again."""

    name: ClassVar[str] = "service.stop"
    summary: ClassVar[str] = "stop a running service"
    up_after: ClassVar[bool] = False

    def _change(self, name: str, before: ServiceState) -> tuple[str, str, str]:
        if before.is_down:
            return "", f"service {name} is {before.state} already", ""
        risk = (
            "nobody is answered until it is started again; requests in flight and what its process held in "
            "memory do not come back"
        )
        return f"service {name}: {before.state}{_pid(before)} -> stopped\n", f"stop service {name}", risk

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Stop the service.

        Raises:
            DriftError: If it is down already.
            ApplyError: If its supervisor refuses or cannot be asked, or it does not end in time.
        """
        name = _service(plan)
        try:
            self._ready(target, plan).stop()
        except CollectError as error:
            raise ApplyError(f"service {name!r} could not be stopped: {error}") from error
        return Outcome(detail=f"service {name!r} was stopped", changed=(name,))

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """Look whether it is down."""
        try:
            state = _moment_of_rest(supervisor_of(target, _service(plan)))
        except CollectError:
            return ProbeAnswer.UNKNOWN
        if state.is_down:
            return ProbeAnswer.DONE
        return ProbeAnswer.NOT_DONE if state.is_up else ProbeAnswer.UNKNOWN


class ServiceRestart(_ServiceAction):
    """Give a service a new process; rollback brings back whether it ran, not the old process."""

    name: ClassVar[str] = "service.restart"
    summary: ClassVar[str] = "restart a service"
    up_after: ClassVar[bool] = True

    def _change(self, name: str, before: ServiceState) -> tuple[str, str, str]:
        risk = (
            "what it does while it runs is not undone by stopping it again"
            if before.is_down
            else "nobody is answered for a moment; requests in flight and the old process with all that it "
            "held in memory do not come back"
        )
        diff = f"service {name}: {before.state}{_pid(before)} -> running with a new process\n"
        return diff, f"restart service {name}", risk

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        """Stop the service if it is up, and start it.

        Raises:
            DriftError: If it is up and was down, or the other way round.
            ApplyError: If its supervisor refuses or cannot be asked, or it does not end in time.
        """
        name = _service(plan)
        try:
            self._ready(target, plan).restart()
        except CollectError as error:
            raise ApplyError(f"service {name!r} could not be restarted: {error}") from error
        return Outcome(detail=f"service {name!r} was restarted", changed=(name,))

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        """Wait until the service runs, with another process than before, and stays so for a second."""
        verification = super().verify(target, plan)
        if verification.ok and self.probe(target, plan) is ProbeAnswer.NOT_DONE:
            return Verification(
                ok=False, detail=f"service {_service(plan)!r} still runs the process that it had before"
            )
        return verification

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        """Compare its process with the one that the plan found.

        A service that is down and was up was stopped half-way, or ended by itself: unknown. So is a new
        process of a service that was restarting by itself when planned.
        """
        before = _before(plan)
        try:
            state = _moment_of_rest(supervisor_of(target, _service(plan)))
        except CollectError:
            return ProbeAnswer.UNKNOWN
        if state.started == before.started and (state.pid == before.pid or before.is_down):
            same_run = state.is_up == before.is_up and state.state is not RunState.UNKNOWN
            return ProbeAnswer.NOT_DONE if same_run else ProbeAnswer.UNKNOWN
        flapping = before.state is RunState.STARTING or (before.restarts or 0) >= FLAPPING_RESTARTS
        return ProbeAnswer.DONE if state.is_up and not flapping else ProbeAnswer.UNKNOWN


def _service(plan: ActionPlan) -> str:
    return str(plan.details["service"])


def _before(plan: ActionPlan) -> ServiceState:
    return ServiceState.model_validate(plan.details["before"])


def _coarse(state: ServiceState) -> str:
    """Up or down: what stays the same while a service is being brought back again and again."""
    if state.is_up:
        return "up"
    return "down" if state.is_down else "unknown"


def _pid(state: ServiceState) -> str:
    return f" (process {state.pid})" if state.pid else ""


def _moment_of_rest(supervisor: Supervisor) -> ServiceState:
    """Wait until a service that is being stopped is down."""
    return settle(supervisor, lambda s: s.state is not RunState.UNKNOWN, timeout=VERIFY_SECONDS)[0]
