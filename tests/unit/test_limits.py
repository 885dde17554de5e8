"""Actions are counted, stopped where they keep failing, and stopped where they go in circles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.clocks import START, FakeClock
from tests.lamp import ALERT, ALLOW, INVENTORY, Lamp, folder_in_memory, orchestrator, prefers
from tests.unit.test_incident_graph import handle, steps
from watchkeeper.runtime.approvals import Answer
from watchkeeper.runtime.breaker import Breaker, BreakerState
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.errors import ConfigurationError, LimitError, UnknownRecordError
from watchkeeper.runtime.events import PlanRefused
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState, effect_key
from watchkeeper.runtime.limits import ActionTarget, Limits
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.settings import Settings, load_settings
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.steps import Step
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import DriftError

SWITCH = ActionTarget("switch.set", "house")


@dataclass
class World:
    """A lamp whose switch may be set without asking, on a clock of its own."""

    home: Path
    limits: Limits = field(default_factory=Limits)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        self.lamp = Lamp.dark(self.home, switch="off")
        registry = builtin_registry()
        for tool in self.lamp.tools():
            registry.add(tool)
        (self.home / "policy.yaml").write_text(ALLOW)
        policy = Policy.load(self.home / "policy.yaml", registry)
        self.journal = Journal(self.home, now=self.clock)
        self.changes = Changes(
            Site(INVENTORY, registry, policy, self.home),
            self.journal,
            requester="ann",
            approval_ttl=3600,
            limits=self.limits,
            max_actions=100,
        )
        self.breaker = Breaker(self.journal.store, self.limits.breaker, now=self.clock)
        self.open()

    def open(self) -> None:
        self.incident = self.journal.open(ALERT).id

    def end(self, status: IncidentStatus = IncidentStatus.RESOLVED) -> None:
        self.journal.incidents.set_status(self.incident, status)

    def step(self, action: str = "switch.set", **arguments: Any) -> Step:
        given = {"position": "on"} if action == "switch.set" else arguments
        step = self.changes.propose(
            self.incident, host="house", action=action, arguments=given, key=f"{self.clock.at}{action}"
        )
        self.changes.decide(step.id)
        return self.journal.steps.get(step.id)

    def do(self, *, helps: bool = True) -> Step:
        """Set the switch; take it back where it does not help."""
        step = self.step()
        assert self.changes.apply(step.id).ok
        assert self.changes.verify(step.id).ok
        if helps:
            self.lamp.put("switch", "off")
        else:
            self.changes.rollback(step.id)
        self.clock.forward(seconds=60)
        return step

    def state(self) -> BreakerState:
        return self.breaker.status(SWITCH).state


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


# -- rate limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"actions_in_all": 2}, "2 actions in all in 600 s are allowed, 2 were done"),
        ({"actions_per_host": 2}, "2 actions on house in 600 s"),
        ({"actions_of_a_kind": 2}, "2 actions of switch.set in 600 s"),
    ],
)
def test_more_actions_than_a_window_allows_are_refused_until_it_has_moved_on(
    home: Path, limits: dict[str, int], said: str
) -> None:
    world = World(home, Limits(window_seconds=600, **limits))
    world.do()
    world.end()
    world.open()  # counted across incidents
    world.do()
    step = world.step()
    assert said in world.changes.refusal(step.id)
    assert "possible again at 2026-01-05 12:10:00 UTC" in world.changes.refusal(step.id)
    with pytest.raises(LimitError, match="rate limit"):
        world.changes.apply(step.id)
    assert world.journal.ledger.state(effect_key(step.id, step.digest)) is EffectState.NONE
    world.clock.at = START + timedelta(seconds=600)
    assert world.changes.refusal(step.id) == ""
    assert world.changes.apply(step.id).ok


def test_other_hosts_and_actions_are_counted_apart(home: Path) -> None:
    world = World(home, Limits(actions_of_a_kind=1))
    world.do()
    assert world.changes.no_room("house", ["switch.set"])
    assert not world.changes.no_room("house", ["bulb.replace"])
    world.lamp.put("bulb", "dusty")
    assert not world.changes.refusal(world.step("bulb.replace").id)
    assert "1 actions of bulb.replace" in world.changes.no_room("house", ["bulb.replace", "bulb.replace"])


def test_the_limit_holds_inside_the_intent_whatever_was_seen_before(home: Path) -> None:
    world = World(home, Limits(actions_in_all=1))
    first, second = world.step(), None
    world.clock.forward(seconds=1)
    second = world.step()
    assert world.changes.refusal(first.id) == world.changes.refusal(second.id) == ""
    assert world.changes.apply(first.id).ok
    world.lamp.put("switch", "off")
    with pytest.raises(LimitError, match="1 actions in all"):
        world.changes.apply(second.id)
    assert world.lamp.changes()[second.id] == 0


def test_a_plan_that_a_limit_would_stop_half_way_is_not_begun(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    limits = Limits(actions_per_host=0)
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW, limits=limits) as o:
        report = handle(o)
    assert (report.outcome, steps(report)) == ("escalated", [])
    assert "switch.set was not tried: rate limit: 0 actions on house" in report.reason


# -- circuit breaker ---------------------------------------------------------------------------------------


def test_an_action_that_keeps_failing_is_stopped_and_people_get_its_history(home: Path) -> None:
    world = World(home)
    done = [world.do(helps=False) for _ in range(3)]
    assert world.state() is BreakerState.OPEN
    step = world.step()
    said = world.changes.refusal(step.id)
    assert all(f"{before.id} rolled-back" in said for before in done)
    assert "one try may be asked for at 2026-01-05 12:32:00 UTC" in said
    with pytest.raises(LimitError, match="circuit breaker"):
        world.changes.apply(step.id)
    # Another action on the same host goes on.
    world.lamp.put("bulb", "dusty")
    assert world.changes.apply(world.step("bulb.replace").id).ok


def test_a_breaker_that_nothing_but_a_doubt_opened_is_listed_too(home: Path) -> None:
    world = World(home, Limits.model_validate({"breaker": {"failures": 1}}))
    step = world.step()
    world.journal.ledger.intend(
        incident_id=world.incident, step_id=step.id, digest=step.digest, target=SWITCH
    )
    assert world.breaker.list() == ()
    world.end(IncidentStatus.ESCALATED)
    assert world.state() is BreakerState.OPEN
    assert [status.target for status in world.breaker.list()] == [SWITCH]


def test_failures_far_apart_and_successes_between_open_nothing_and_something(home: Path) -> None:
    world = World(home)
    for _ in range(4):
        world.do(helps=False)
        world.clock.forward(seconds=1800)
    assert world.state() is BreakerState.CLOSED
    world.do(helps=False)
    world.do(helps=True)  # a service that fails two times of three is not well
    world.do(helps=False)
    assert world.state() is BreakerState.OPEN


def test_after_a_time_one_try_is_asked_for_even_where_the_policy_allows(home: Path) -> None:
    world = World(home)
    for _ in range(3):
        world.do(helps=False)
    world.clock.forward(seconds=1800)
    assert world.state() is BreakerState.HALF_OPEN
    step = world.step()
    assert step.policy is not None
    assert (step.policy.decision, step.policy.rule) == (Verdict.ASK, "circuit-breaker")
    asked = world.changes.ask(step.id)
    world.journal.answer(asked.id, Answer.APPROVE, by="bob")
    assert world.changes.apply(step.id, asked.id).ok
    # Nobody else tries meanwhile, and the one try decides.
    world.clock.forward(seconds=1)
    world.lamp.put("switch", "off")
    assert world.state() is BreakerState.TRYING
    assert "the one try is under way" in world.changes.refusal(world.step().id)
    world.lamp.put("switch", "on")
    assert world.changes.verify(step.id).ok
    assert world.state() is BreakerState.CLOSED


def test_a_try_that_fails_opens_it_again_for_the_whole_time(home: Path) -> None:
    world = World(home)
    for _ in range(3):
        world.do(helps=False)
    world.clock.forward(seconds=1800)
    step = world.step()
    asked = world.changes.ask(step.id)
    world.journal.answer(asked.id, Answer.APPROVE, by="bob")
    assert world.changes.apply(step.id, asked.id).ok
    world.changes.rollback(step.id)
    assert world.state() is BreakerState.OPEN
    world.clock.forward(seconds=1799)
    assert world.state() is BreakerState.OPEN
    world.clock.forward(seconds=1)
    assert world.state() is BreakerState.HALF_OPEN


def test_what_was_allowed_before_the_breaker_opened_is_not_done_without_a_yes(home: Path) -> None:
    world = World(home)
    step = world.step()
    world.clock.forward(seconds=1)
    for _ in range(3):
        world.do(helps=False)
    with pytest.raises(LimitError, match="circuit breaker"):
        world.changes.apply(step.id)
    world.clock.forward(seconds=1800)
    with pytest.raises(DriftError, match="asks for an approval"):
        world.changes.apply(step.id)


def test_a_person_closes_a_breaker_and_the_audit_log_tells(home: Path) -> None:
    world = World(home)
    for _ in range(3):
        world.do(helps=False)
    assert [status.state for status in world.breaker.list()] == [BreakerState.OPEN]
    before = world.breaker.reset(SWITCH, world.journal.audit, by="bob", reason="new bulb")
    assert before.state is BreakerState.OPEN
    assert (world.state(), world.breaker.list()) == (BreakerState.CLOSED, ())
    (entry,) = [entry for entry in world.journal.audit.entries() if entry.kind == "breaker-reset"]
    assert isinstance(entry.data, dict)
    assert (entry.data["by"], entry.data["reason"], entry.data["failures"]) == ("bob", "new bulb", 3)
    assert world.changes.apply(world.step().id).ok
    with pytest.raises(UnknownRecordError, match=r"switch.set on shed was never done"):
        world.breaker.reset(ActionTarget("switch.set", "shed"), world.journal.audit, by="bob")


def test_a_reset_that_cannot_be_audited_does_not_happen(home: Path) -> None:
    world = World(home)
    for _ in range(3):
        world.do(helps=False)
    log = home / "audit" / "audit.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(Exception, match="was cut"):
        world.breaker.reset(SWITCH, world.journal.audit, by="bob")
    assert world.state() is BreakerState.OPEN


def test_an_open_breaker_hands_the_incident_to_people(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", jinx="yes")
    limits = Limits.model_validate({"breaker": {"failures": 1}})
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW, limits=limits) as o:
        first = handle(o)
        assert steps(first) == [("switch.set", "rolled-back")]
        report = handle(o)
    assert report.outcome == "escalated"
    assert "circuit breaker: switch.set on house failed or was taken back 1 times" in report.reason
    (refused,) = [event.reason for event in report.timeline if isinstance(event, PlanRefused)]
    assert refused.startswith("circuit breaker")
    assert steps(report) == [("switch.set", "refused")]


def test_an_open_breaker_gives_way_to_the_next_cause(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    limits = Limits.model_validate({"breaker": {"failures": 1}})
    with orchestrator(home, lamp, prefers("bulb"), rules=ALLOW, limits=limits) as o:
        first = handle(o)
        assert steps(first) == [("bulb.replace", "rolled-back"), ("switch.set", "verified")]
        lamp.put("switch", "off")
        second = handle(o)
    assert second.outcome == "resolved"
    assert steps(second) == [("bulb.replace", "refused"), ("switch.set", "verified")]


def test_who_only_observes_does_not_say_that_what_a_breaker_forbids_would_have_been_done(
    tmp_path: Path, home: Path
) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", jinx="yes")
    limits = Limits.model_validate({"breaker": {"failures": 1}})
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW, limits=limits) as o:
        handle(o)
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW, limits=limits, observe_only=True) as o:
        report = handle(o)
    assert report.outcome == "escalated"
    assert report.would_have_done == ()
    assert steps(report) == [("switch.set", "refused")]
    assert "circuit breaker" in report.reason


# -- loops -------------------------------------------------------------------------------------------------


def test_the_third_time_the_same_remedy_would_be_tried_people_are_told(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW) as o:
        for _ in range(2):
            assert handle(o).outcome == "resolved"
            lamp.put("switch", "off")
        report = handle(o)
        assert report.outcome == "escalated"
        assert "loop: switch.set on house resolved this alert 2 times, and it came back" in report.reason
        assert "watchkeeper breaker reset switch.set house" in report.reason
        assert steps(report) == [("switch.set", "refused")]
        # A person who says that the matter is closed starts it anew.
        breaker = Breaker(o.journal.store, o.settings.limits.breaker)
        breaker.reset(SWITCH, o.journal.audit, by="bob")
        assert handle(o).outcome == "resolved"


def test_the_same_remedy_long_after_is_no_loop(home: Path) -> None:
    world = World(home)
    for number in range(4):
        step = world.do()
        world.end()
        world.clock.forward(seconds=1000 if number < 2 else 3601)
        world.open()
        again = world.step()
        if number == 0:
            assert world.changes.refusal(again.id) == ""
        elif number == 1:
            assert step.id in world.changes.refusal(again.id)
        else:
            assert world.changes.refusal(again.id) == ""


# -- settings ----------------------------------------------------------------------------------------------


def test_limits_are_a_section_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("limits:\n  actions_per_host: 3\n  breaker: {failures: 5}\n")
    monkeypatch.delenv("WATCHKEEPER_CONFIG", raising=False)
    limits = load_settings(path).limits
    assert (limits.actions_per_host, limits.breaker.failures, limits.actions_in_all) == (3, 5, 60)
    assert Settings(home=tmp_path).limits == Limits()
    path.write_text("limits:\n  actions_per_hots: 3\n")
    with pytest.raises(ConfigurationError, match="actions_per_hots"):
        load_settings(path)
    path.write_text("limits:\n  breaker: {failures: none}\n")
    with pytest.raises(ConfigurationError, match=r"failures"):
        load_settings(path)
