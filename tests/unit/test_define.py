"""A fact and an action of a user's own, from a function and a small class, hold to what built-in ones do."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from watchkeeper import (
    ActionPlan,
    Finding,
    Inventory,
    Outcome,
    ProbeAnswer,
    Result,
    Reversibility,
    Severity,
    Target,
    Verification,
    action,
    fact,
)
from watchkeeper.tools.errors import ApplyError, ArgumentError, CollectError, PlanError, RollbackError
from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.host import LocalHost
from watchkeeper.tools.registry import Registry, parse
from watchkeeper.tools.schema import argument_schema, candidate_calls, known

SPEC = Inventory.model_validate({"hosts": [{"name": "here"}]}).host("here")
HERE = Target(LocalHost("here"), SPEC, Path("/nonexistent"))


class Depth(Result):
    """How many jobs wait."""

    jobs: int


def deep(result: Depth) -> list[Finding]:
    text = f"{result.jobs} jobs wait."
    return [Finding(kind="queue-deep", subject="queue", text=text, severity=Severity.WARNING)]


@fact("queue.depth", summary="how many jobs wait", findings=deep)
def depth(target: Target, queue: str = "mail", limit: Annotated[int, Field(ge=1)] = 10) -> Depth:
    """Count the jobs of a queue."""
    if queue == "gone":
        raise CollectError("queue 'gone' cannot be read")
    return Depth(jobs=min(limit, 7))


class Methods:
    """Everything that an action must have."""

    def plan(
        self, target: Target, key: str, queue: str, order: Literal["oldest", "newest"] = "oldest"
    ) -> ActionPlan:
        return ActionPlan(key=key, summary=f"drain {queue}", diff=f"-{queue}", details={"order": order})

    def apply(self, target: Target, plan: ActionPlan) -> Outcome:
        return Outcome(detail=f"drained, {plan.details['order']} first")

    def verify(self, target: Target, plan: ActionPlan) -> Verification:
        return Verification(ok=True, detail="empty")

    def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
        return ProbeAnswer.DONE


class WithWayBack(Methods):
    """The same, with a way back."""

    def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
        return Outcome(detail="filled again")


def test_a_fact_becomes_evidence_with_findings() -> None:
    evidence = Registry([depth]).gather("queue.depth", HERE, {"limit": 5}, id="E1")
    assert evidence.result == {"cut": False, "jobs": 5}
    assert [finding.text for finding in evidence.findings] == ["5 jobs wait."]
    assert (evidence.provenance, evidence.arguments) == (Provenance.TRUSTED, {"queue": "mail", "limit": 5})


def test_a_fact_can_still_be_called_as_the_function_it_was_made_from() -> None:
    assert depth(HERE, limit=3) == Depth(jobs=3)


def test_a_fact_that_cannot_be_read_is_evidence_too() -> None:
    evidence = Registry([depth]).gather("queue.depth", HERE, {"queue": "gone"}, id="E1")
    assert (evidence.result, evidence.error) == (None, "queue 'gone' cannot be read")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"limit": 0}, r"queue.depth: limit: .*1.*got 0"),
        ({"limit": "many"}, r"queue.depth: limit: .*'many'"),
        ({"depth": 1}, r"queue.depth: depth: there is no such argument"),
    ],
)
def test_arguments_are_checked_by_their_annotations(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        parse(depth, values)


def test_a_model_sees_the_arguments_and_what_the_inventory_knows() -> None:
    @fact("job.state", summary="how a service's jobs are")
    def state(target: Target, service: Annotated[str, known("service")]) -> Depth:
        return Depth(jobs=len(service))

    spec = SPEC.model_validate(
        {
            "name": "here",
            "services": [{"name": name, "supervisor": {"kind": "systemd"}} for name in ("api", "mail")],
        }
    )
    assert argument_schema(depth)["properties"]["limit"] == {"type": "integer", "minimum": 1}
    assert candidate_calls(depth, SPEC) == [{}]
    assert candidate_calls(state, spec) == [{"service": "api"}, {"service": "mail"}]
    assert argument_schema(state, {"service": ["api"]})["properties"]["service"]["enum"] == ["api"]


def test_an_action_hands_its_plan_through() -> None:
    drain = action("queue.drain", summary="drain a queue", reversibility="compensable", version=3)(
        WithWayBack
    )
    plan = drain.plan(HERE, parse(drain, {"queue": "mail", "order": "newest"}), key="S1")
    assert (drain.name, drain.version, drain.reversibility) == (
        "queue.drain",
        3,
        Reversibility.COMPENSABLE,
    )
    assert (plan.key, plan.details) == ("S1", {"order": "newest"})
    assert drain.apply(HERE, plan).detail == "drained, newest first"
    assert drain.verify(HERE, plan).ok
    assert drain.probe(HERE, plan) is ProbeAnswer.DONE
    assert drain.rollback(HERE, plan).detail == "filled again"
    assert argument_schema(drain)["required"] == ["queue"]
    with pytest.raises(ArgumentError, match=r"queue\.drain: order: .*'last'"):
        parse(drain, {"queue": "mail", "order": "last"})


def test_only_what_is_irreversible_needs_no_way_back() -> None:
    drop = action("queue.drop", summary="drop a queue", reversibility=Reversibility.IRREVERSIBLE)(Methods)
    with pytest.raises(RollbackError, match="no way back"):
        drop.rollback(HERE, ActionPlan(key="k", summary="s"))
    for kind in ("reversible", "compensable"):
        with pytest.raises(TypeError, match=f"'queue.drop' is declared {kind}, so it must have a rollback"):
            action("queue.drop", summary="-", reversibility=kind)(Methods)
    with pytest.raises(ValueError, match="'maybe' is not a valid Reversibility"):
        action("queue.drop", summary="-", reversibility="maybe")(Methods)


def test_an_argument_without_an_annotation_is_refused() -> None:
    def bare(target: Target, queue) -> Depth:  # type: ignore[no-untyped-def]  # this is the point
        return Depth(jobs=0)

    def any_number(target: Target, **queues: str) -> Depth:
        return Depth(jobs=len(queues))

    for function, name in ((bare, "queue"), (any_number, "queues")):
        with pytest.raises(TypeError, match=f"'q.d': argument '{name}' needs a type annotation"):
            fact("q.d", summary="-")(function)


def test_a_function_that_does_not_say_what_it_returns_is_refused() -> None:
    def number(target: Target) -> int:
        return 1

    with pytest.raises(TypeError, match=r"'q\.d' must be annotated to return a subclass of Result, not"):
        fact("q.d", summary="-")(number)  # type: ignore[type-var]  # this is the point


def test_a_name_is_taken_once() -> None:
    registry = Registry([depth])
    with pytest.raises(ValueError, match=r"'queue\.depth' is registered already"):
        registry.add(depth)


def test_what_the_system_refuses_is_told_as_any_tool_would() -> None:
    def missing() -> Any:
        return Path("/nonexistent/queue").read_text()

    @fact("queue.file", summary="what is in a file")
    def file(target: Target) -> Depth:
        return Depth(jobs=len(missing()))

    class Broken(WithWayBack):
        def plan(self, target: Target, key: str) -> ActionPlan:  # type: ignore[override]
            return missing()

        def apply(self, target: Target, plan: ActionPlan) -> Outcome:
            return missing()

        def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
            return missing()

    evidence = Registry([file]).gather("queue.file", HERE, {}, id="E1")
    assert evidence.error == "queue.file: No such file or directory: '/nonexistent/queue'"
    broken = action("queue.break", summary="-", reversibility="reversible")(Broken)
    plan = ActionPlan(key="k", summary="s")
    for error, call in (
        (PlanError, lambda: broken.plan(HERE, parse(broken, {}), key="k")),
        (ApplyError, lambda: broken.apply(HERE, plan)),
        (RollbackError, lambda: broken.rollback(HERE, plan)),
    ):
        with pytest.raises(error, match=r"queue\.break: No such file"):
            call()


class Readings(Result):
    """Numbers of an instrument."""

    mean: float
    ticks: int


@fact("meter.read", summary="what the meter says")
def meter(target: Target, broken: bool = False) -> Readings:
    """Read a meter."""
    if broken:
        raise ValueError("no number: '²'")
    return Readings(mean=float("nan"), ticks=2**60)


def test_numbers_that_json_cannot_hold_are_evidence_as_text() -> None:
    found = Registry([meter]).gather("meter.read", HERE, {}, id="E1")
    assert (found.result, found.error) == ({"mean": "nan", "ticks": str(2**60), "cut": False}, "")


def test_a_fact_that_trips_over_what_it_reads_is_evidence_too() -> None:
    found = Registry([meter]).gather("meter.read", HERE, {"broken": True}, id="E1")
    assert found.result is None
    assert found.error == "meter.read: what it read cannot be understood (ValueError: no number: '²')"
