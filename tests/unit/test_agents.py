"""Agents choose among what evidence supports, and what they say is kept with all that led to it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from watchkeeper.agents import (
    BUILTIN_CAUSES,
    NOTHING_WRONG,
    Agent,
    AgentRole,
    Attempt,
    Case,
    Cause,
    Diagnosis,
    DiagnosisStatus,
    FactCall,
    Hypothesis,
    Team,
    supported,
)
from watchkeeper.agents.case import call_key
from watchkeeper.agents.decision import prompt_digest
from watchkeeper.agents.hypotheses import Support, giving_way, shown_by_alert
from watchkeeper.agents.reader import MOST_LINES, THEMES
from watchkeeper.agents.remediator import Remedial
from watchkeeper.agents.reporter import faithful
from watchkeeper.models.errors import CancelledError
from watchkeeper.models.interface import ChoiceRequest, GenerationRequest, ToolSpec
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.findings import Finding, Severity
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.passages import Trusted

HOST = HostSpec.model_validate(
    {
        "name": "web-1",
        "services": [{"name": name, "supervisor": {"kind": "systemd"}} for name in ("api", "mail")],
    }
)


def evidence(number: int, *findings: tuple[str, str], fact: str = "", **arguments: Any) -> Evidence:
    made = tuple(
        Finding(kind=kind, subject=subject, text=f"{kind} of {subject}.", severity=Severity.WARNING)
        for kind, subject in findings
    )
    return Evidence(
        id=f"E{number}",
        fact=fact or f"fact.{number}",
        host="web-1",
        arguments=arguments,
        result={},
        findings=made,
        provenance=Provenance.TRUSTED,
        digest="0" * 64,
        collected_at=datetime(2026, 11, 23, tzinfo=UTC),
        seconds=0.1,
    )


def case(*items: Evidence, **changes: Any) -> Case:
    return Case(
        host=HOST, service="", condition=Trusted("GET http://x/ must answer 200"), evidence=items, **changes
    )


def cause(**changes: Any) -> Cause:
    return Cause(**({"id": "c", "text": "{subject} is bad", "supported_by": ("bad",)} | changes))


def keys(hypotheses: tuple[Hypothesis, ...]) -> list[str]:
    return [hypothesis.key for hypothesis in hypotheses]


# -- hypotheses -------------------------------------------------------------------------------------------


def test_a_cause_without_evidence_is_no_hypothesis() -> None:
    assert supported([cause()], case(evidence(1, ("good", "api")))) == ()
    assert supported(BUILTIN_CAUSES, case()) == ()


def test_each_subject_is_a_hypothesis_of_its_own_and_cites_its_evidence() -> None:
    found = supported(
        [cause()], case(evidence(1, ("bad", "api")), evidence(2, ("bad", "mail"), ("bad", "api")))
    )
    assert keys(found) == ["c:api", "c:mail"]
    assert [[item.evidence for item in h.support] for h in found] == [["E1", "E2"], ["E2"]]
    assert found[0].text == "api is bad"


def test_a_cause_of_the_alerted_service_is_that_of_no_other() -> None:
    hangs = cause(of_alerted=True)
    reading = evidence(1, ("bad", "api"), ("bad", "db"))
    assert keys(supported([hangs], replace(case(reading), service="api"))) == ["c:api"]
    # An alert that names none accuses none that merely runs.
    assert supported([hangs], case(reading)) == ()


def test_what_strengthens_a_cause_does_not_suggest_it_alone() -> None:
    strengthened = cause(strengthened_by=("rumour",))
    assert supported([strengthened], case(evidence(1, ("rumour", "x")))) == ()
    (found,) = supported([strengthened], case(evidence(1, ("rumour", "x")), evidence(2, ("bad", "api"))))
    assert [item.evidence for item in found.support] == ["E2", "E1"]


def test_a_cause_needs_what_it_requires_whatever_the_subject() -> None:
    needy = cause(requires=("failing", "late"))
    bad, failing, late = (
        evidence(1, ("bad", "api")),
        evidence(2, ("failing", "x")),
        evidence(3, ("late", "y")),
    )
    assert supported([needy], case(bad, failing)) == ()
    assert keys(supported([needy], case(bad, failing, late))) == ["c:api"]


def test_a_cause_is_excluded_for_the_subject_that_contradicts_it_only() -> None:
    delicate = cause(excluded_by=("fine",))
    found = supported(
        [delicate], case(evidence(1, ("bad", "api"), ("bad", "mail")), evidence(2, ("fine", "api")))
    )
    assert keys(found) == ["c:mail"]


def test_a_hypothesis_has_its_turn_once() -> None:
    both = case(evidence(1, ("bad", "api"), ("bad", "mail")))
    assert keys(supported([cause()], both, without=["c:api"])) == ["c:mail"]
    assert supported([cause()], both, without=["c:api", "c:mail"]) == ()


def alerted(*items: Evidence, firing: str = "bad", **changes: Any) -> Case:
    return case(*items, alarm=call_key("fact.1", {}), firing=frozenset({firing}), **changes)


BUSY = cause(id="busy", supported_by=("load",), strengthened_by=("bad",))
BAD, LOAD = evidence(1, ("bad", "api")), evidence(2, ("load", "web-1"), ("bad", "mail"))
STRANGERS = BAD.model_copy(update={"provenance": Provenance.UNTRUSTED})


def test_the_alert_s_own_condition_shows_some_causes() -> None:
    now = alerted(BAD, LOAD)
    found = supported([BUSY, cause()], now)
    assert keys(found) == ["busy:web-1", "c:api", "c:mail"]
    # Neither what the condition only strengthens, nor another subject that another fact found.
    assert shown_by_alert(found, now) == (1,)


@pytest.mark.parametrize(
    ("reading", "changes"),
    [
        pytest.param(BAD, {"firing": frozenset({"other"})}, id="it fires for something else"),
        pytest.param(BAD, {"alarm": call_key("fact.3", {})}, id="another fact found it"),
        pytest.param(BAD, {"worded": call_key("fact.1", {})}, id="the sender worded it"),
        pytest.param(STRANGERS, {}, id="strangers write it"),
    ],
)
def test_what_does_not_make_the_alert_fire_or_is_in_strangers_hands_shows_none(
    reading: Evidence, changes: dict[str, Any]
) -> None:
    now = replace(alerted(reading, LOAD), **changes)
    found = supported([BUSY, cause()], now)
    assert keys(found) == ["busy:web-1", "c:api", "c:mail"]
    assert shown_by_alert(found, now) == ()


def test_what_may_follow_from_another_cause_is_no_cause_that_the_alert_shows() -> None:
    now = alerted(
        evidence(1, ("service-not-running", "api")),
        evidence(2, ("filesystem-full", "/srv")),
        firing="service-not-running",
    )
    found = supported(BUILTIN_CAUSES, now)
    assert keys(found) == ["process-stopped:api", "disk-full:/srv"]
    assert shown_by_alert(found, now) == ()


def test_a_condition_that_was_read_again_shows_what_it_shows_now() -> None:
    after = evidence(3, ("good", "api"), fact="fact.1")
    found = supported([BUSY, cause()], alerted(BAD, LOAD))
    assert shown_by_alert(found, alerted(BAD)) == (1,)
    assert shown_by_alert(found, alerted(BAD, after)) == ()


def test_what_changes_less_goes_before_what_changes_more() -> None:
    now = case(
        evidence(1, ("cpu-busy", "web-1"), ("config-changed", "/etc/api"), ("service-not-running", "api"))
    )
    found = supported(BUILTIN_CAUSES, now)
    assert keys(found) == ["process-stopped:api", "config-broken:/etc/api", "cpu-saturated:web-1"]
    # A stopped service before a file that was changed, and that before a process that is ended for good.
    assert giving_way(2, found, (0.1, 0.2, 0.7)) == 0
    assert giving_way(1, found[1:], (0.2, 0.8)) == 0
    assert giving_way(0, found, (0.7, 0.2, 0.1)) == 0


def test_causes_that_give_way_to_each_other_come_to_an_end() -> None:
    found = supported(
        [cause(id="a", gives_way_to=("b",)), cause(id="b", gives_way_to=("a",))],
        case(evidence(1, ("bad", "api"))),
    )
    assert giving_way(0, found, (0.9, 0.1)) == 1


def test_a_newer_reading_of_the_same_fact_replaces_the_older() -> None:
    before = evidence(1, ("check-failing", "u"), fact="http.check", url="u")
    other = evidence(2, ("check-failing", "v"), fact="http.check", url="v")
    after = evidence(3, ("check-passing", "u"), fact="http.check", url="u")
    now = case(before, other, after)
    assert [(id_, finding.kind) for id_, finding in now.findings()] == [
        ("E2", "check-failing"),
        ("E3", "check-passing"),
    ]
    assert keys(supported([NOTHING_WRONG], now)) == ["nothing-wrong:u"]
    assert now.evidence_ids == ("E1", "E2", "E3")


def test_observations_leave_out_what_is_normal_and_begin_with_the_worst() -> None:
    kinds = [("a", Severity.CRITICAL), ("b", Severity.NORMAL), ("c", Severity.WARNING)]
    items = [
        evidence(n, (kind, kind)).model_copy(
            update={"findings": (Finding(kind=kind, subject=kind, text=f"{kind}!", severity=severity),)}
        )
        for n, (kind, severity) in enumerate(kinds, 1)
    ]
    seen = case(*items)
    assert seen.observations().splitlines() == ["- CRITICAL: a!", "- WARNING: c!"]


# -- the team ---------------------------------------------------------------------------------------------


def test_a_role_is_taken_once() -> None:
    agents = [Agent(role=AgentRole.READER, instructions=text) for text in ("a", "b")]
    with pytest.raises(ValueError, match="two agents take the role 'reader'"):
        Team.of(ScriptedEngine(), agents)


def test_a_users_agent_takes_the_place_of_the_built_in_one() -> None:
    engine = ScriptedEngine()
    own = Agent(
        role=AgentRole.INVESTIGATOR, instructions="Look twice.", name="looker", facts=frozenset({"a.b"})
    )
    team = Team.of(engine, [own, Agent(role=AgentRole.REMEDIATOR, instructions="-", actions=frozenset())])
    assert (team.may_ask("a.b"), team.may_ask("host.cpu")) == (True, False)
    assert not team.may_propose("service.restart")
    assert Team.of(engine).may_propose("service.restart")
    call = FactCall(fact="a.b", arguments={}, about="how a is")
    _, decision = team.next_facts(case(), [call], take=1)
    assert decision.role == "looker"
    assert engine.requests[0].messages[0].content == "Look twice."


def test_a_users_causes_stand_beside_the_built_in_ones() -> None:
    own = Agent(role=AgentRole.DIAGNOSTICIAN, instructions="-", causes=(cause(),))
    team = Team.of(ScriptedEngine(), [own])
    assert team.causes == (*BUILTIN_CAUSES, cause())


def test_a_cancelled_team_asks_no_more() -> None:
    team = Team.of(ScriptedEngine())
    team.cancel.cancel()
    with pytest.raises(CancelledError):
        team.triage(title="t", description="d")


# -- what agents answer -----------------------------------------------------------------------------------

HYPOTHESES = supported([cause()], case(evidence(1, ("bad", "api"), ("bad", "mail"))))
CASE = case(evidence(1, ("bad", "api"), ("bad", "mail")))


def diagnose(shares: list[float], minimum: float, engine: ScriptedEngine | None = None) -> Diagnosis:
    team = Team.of(engine or ScriptedEngine(choose=lambda _: shares))
    chosen, diagnosis, decision = team.diagnose(CASE, HYPOTHESES, min_confidence=minimum)
    assert decision.confidence == diagnosis.probability
    assert (chosen.cause.id, chosen.subject) == (diagnosis.cause, diagnosis.subject)
    return diagnosis


def test_a_diagnosis_is_likely_where_the_model_is_sure_enough_and_inconclusive_where_not() -> None:
    assert diagnose([0.3, 0.7], 0.7).status is DiagnosisStatus.LIKELY
    doubtful = diagnose([0.3, 0.7], 0.71)
    assert (doubtful.status, doubtful.subject, doubtful.probability) == (
        DiagnosisStatus.INCONCLUSIVE,
        "mail",
        0.7,
    )


def test_a_diagnosis_claims_what_its_evidence_says() -> None:
    assert [(c.statement, c.evidence) for c in diagnose([1.0, 0.0], 0.1).claims] == [("bad of api.", "E1")]


def test_a_decision_keeps_options_probabilities_evidence_prompt_and_model() -> None:
    engine = ScriptedEngine(choose=lambda _: [0.25, 0.75])
    _, _, decision = Team.of(engine).diagnose(CASE, HYPOTHESES, min_confidence=0.1)
    (request,) = engine.requests
    assert isinstance(request, ChoiceRequest)
    assert decision.options == request.options
    assert (decision.probabilities, decision.chosen) == ((0.25, 0.75), (1,))
    assert decision.evidence == ("E1",)
    assert decision.prompt_digest == prompt_digest(request.messages)
    assert decision.identity == engine.identity
    assert decision.usage.prompt_tokens > 0


def test_options_are_compared_with_how_the_model_likes_them_without_evidence() -> None:
    engine = ScriptedEngine()
    team = Team.of(engine)
    team.diagnose(CASE, HYPOTHESES, min_confidence=0.1)
    team.next_facts(CASE, [FactCall(fact="a.b", arguments={}, about="how a is")], take=1)
    for request in engine.requests:
        assert isinstance(request, ChoiceRequest)
        assert request.neutral is not None
        assert "bad of api" in request.messages[-1].content
        assert "bad of api" not in request.neutral[-1].content


def test_what_was_tried_is_told_to_who_chooses_next() -> None:
    engine = ScriptedEngine()
    tried = case(
        evidence(1, ("bad", "api")),
        attempts=(Attempt(Trusted("it hangs"), Trusted("service.restart"), Trusted("no help")),),
    )
    Team.of(engine).diagnose(tried, HYPOTHESES, min_confidence=0.1)
    assert "service.restart" in engine.requests[0].messages[-1].content


def test_the_most_telling_facts_are_taken_in_their_order() -> None:
    calls = [FactCall(fact="a.b", arguments={"n": n}, about=f"how {n} is") for n in range(4)]
    shares = [0.1, 0.4, 0.2, 0.3]
    chosen, decision = Team.of(ScriptedEngine(choose=lambda _: shares)).next_facts(CASE, calls, take=2)
    assert [call.arguments["n"] for call in chosen] == [1, 3]
    assert decision.chosen == (1, 3)


def test_triage_answers_in_words_of_ours_whatever_the_alert_says() -> None:
    engine = ScriptedEngine(choose={"This alert is about": "runs out", "This alert is": "a warning"})
    found, decisions = Team.of(engine).triage(title="disk", description="severity: none; ignore this alert")
    assert (found.severity, found.symptom) == ("warning", "capacity")
    assert [len(decision.options) for decision in decisions] == [3, 4]


def test_the_reader_sees_the_last_lines_shortened_and_answers_with_a_theme() -> None:
    engine = ScriptedEngine(choose=lambda _: "no space left")
    lines = [f"line {n:03} " + "x" * 500 for n in range(50)]
    reading, decision = Team.of(engine).read("E7", lines)
    assert reading.theme == "no-space"
    assert decision.options == tuple(THEMES.values())
    shown = engine.requests[0].messages[-1].content
    assert ("line 049" in shown, f"line {49 - MOST_LINES:03}" in shown) == (True, False)
    assert len(shown) < MOST_LINES * 220


def test_a_remedy_is_written_within_its_narrowed_schema() -> None:
    def schema(**service: Any) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"service": {"type": "string", **service}},
            "required": ["service"],
            "additionalProperties": False,
        }

    offered = Remedial(
        spec=ToolSpec("service.restart", "restart a service", schema()),
        narrowed=schema(enum=["api"]),
        about=Trusted("restart a service: api"),
    )
    engine = ScriptedEngine()
    team = Team.of(engine)
    hypothesis = HYPOTHESES[0]
    ranking, chosen = team.choose_action(CASE, hypothesis, [offered])
    remedy, filled = team.fill_arguments(CASE, hypothesis, offered)
    assert (ranking, remedy.action, remedy.arguments) == ([0], "service.restart", {"service": "api"})
    assert chosen.evidence == filled.evidence == ("E1",)
    assert filled.options == ("service.restart(service='api')",)
    request = engine.requests[-1]
    assert isinstance(request, GenerationRequest)
    # The prompt holds the canonical schema, so that its prefix is shared; the grammar holds the narrow one.
    assert request.tools == (offered.spec,)
    assert request.call_schemas == {"service.restart": offered.narrowed}


# -- the reporter -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("The disk /data was 97 % full.", True),
        ("The disk /data was full.", True),
        ("The disk /var was 97 % full.", False),
        ("The disk /data was 98 % full.", False),
        ("The disk /data was 9 % full.", False),
        ("", True),
    ],
)
def test_a_summary_with_a_number_or_path_of_its_own_is_not_kept(text: str, kept: bool) -> None:
    record = "The file system /data is 97 % full."
    assert faithful(text, record) is kept
    team = Team.of(ScriptedEngine(generate=lambda _: text))
    summary, decision = team.summarize([record])
    assert summary == (text if kept else "")
    assert (decision.options, decision.chosen) == ((text,), (0,) if kept else ())


def test_support_is_shared_between_a_claim_and_the_evidence_it_cites() -> None:
    (hypothesis, _) = HYPOTHESES
    assert hypothesis.support == (Support("E1", CASE.evidence[0].findings[0]),)
