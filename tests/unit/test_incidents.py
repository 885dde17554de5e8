"""Incidents group alerts, go legal ways, and keep events and evidence once."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.decisions import DecisionRecord, Decisions
from watchkeeper.runtime.errors import (
    ConfigurationError,
    IncidentBusyError,
    TransitionError,
    UnknownIncidentError,
    UnknownRecordError,
)
from watchkeeper.runtime.events import IncidentOpened, Option, Progress, StageEntered
from watchkeeper.runtime.incidents import TRANSITIONS, Incidents, IncidentStatus
from watchkeeper.runtime.steps import Step, Steps, StepStatus
from watchkeeper.runtime.store import Store
from watchkeeper.tools.action import ActionPlan, Reversibility
from watchkeeper.tools.evidence import Evidence, digest_json
from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.facts.http import HttpCheckFact
from watchkeeper.tools.facts.tcp import TcpCheckFact
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.registry import Registry

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "w.db")


@pytest.fixture
def incidents(store: Store) -> Incidents:
    return Incidents(store, now=lambda: NOON)


def alert(**changes: object) -> Alert:
    check = {"kind": "http", "url": "http://127.0.0.1:8080/health", "expect": 200}
    return Alert.model_validate({"title": "api is down", "host": "web-1", "condition": check} | changes)


def evidence(name: str) -> Evidence:
    return Evidence(
        id=name,
        fact="disk.usage",
        host="web-1",
        arguments={"path": "/"},
        result={"used": 0.5},
        provenance=Provenance.TRUSTED,
        digest=digest_json({"used": 0.5}),
        collected_at=NOON,
        seconds=0.1,
    )


def step(name: str, incident_id: str) -> Step:
    return Step(
        id=name,
        incident_id=incident_id,
        host="web-1",
        action="service.restart",
        arguments={"service": "api"},
        reversibility=Reversibility.REVERSIBLE,
        plan=ActionPlan(key=name, summary="restart api", diff="- stopped\n+ running"),
        digest="d" * 64,
    )


def test_a_second_alert_of_the_same_fingerprint_joins_the_live_incident(incidents: Incidents) -> None:
    first = incidents.open(alert())
    again = incidents.open(alert(title="api is still down", description="other words"))
    assert (again.id, again.alert_count) == (first.id, 2)
    assert [e.grouped for e in incidents.events(first.id) if isinstance(e, IncidentOpened)] == [False, True]


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "web-2"},
        {"service": "api"},
        {"condition": {"kind": "http", "url": "http://127.0.0.1:9090/"}},
        {"condition": {"fact": "disk.usage", "arguments": {"path": "/"}, "firing": ["filesystem-full"]}},
    ],
)
def test_another_host_service_or_condition_is_another_incident(
    incidents: Incidents, changes: dict[str, object]
) -> None:
    assert incidents.open(alert()).id != incidents.open(alert(**changes)).id


@pytest.mark.parametrize("status", [s for s in IncidentStatus if s.ended])
def test_an_alert_after_the_end_opens_a_new_incident(incidents: Incidents, status: IncidentStatus) -> None:
    first = incidents.open(alert())
    incidents.set_status(first.id, status)
    assert incidents.open(alert()).id != first.id
    assert {i.id for i in incidents.list(live=False)} == {first.id}


def test_many_threads_that_raise_one_alert_open_one_incident(store: Store) -> None:
    incidents = Incidents(store)
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: incidents.open(alert()).id, range(16)))
    assert len(set(opened)) == 1
    assert incidents.get(opened[0]).alert_count == 16
    assert [e.seq for e in incidents.events(opened[0])] == list(range(1, 17))


def test_ids_that_are_taken_are_not_given_twice(store: Store) -> None:
    names = iter(["AAAA", "AAAA", "BBBB"])
    incidents = Incidents(store, short=lambda _: next(names))
    assert incidents.open(alert()).id == "INC-AAAA"
    assert incidents.open(alert(host="web-2")).id == "INC-BBBB"


@pytest.mark.parametrize("source", list(IncidentStatus))
@pytest.mark.parametrize("target", list(IncidentStatus))
def test_an_incident_goes_legal_ways_only(
    incidents: Incidents, source: IncidentStatus, target: IncidentStatus
) -> None:
    incident = incidents.open(alert())
    incidents.set_status(incident.id, source)
    if target in TRANSITIONS[source] or target is source:
        moved = incidents.set_status(incident.id, target, summary="why")
        assert (moved.status, moved.summary) == (target, "why")
        assert (moved.ended_at == NOON) == target.ended
    else:
        with pytest.raises(TransitionError, match=f"{incident.id}.*{source.value}.*{target.value}"):
            incidents.set_status(incident.id, target)
        assert incidents.get(incident.id).status is source


def test_an_unknown_incident_is_named(incidents: Incidents) -> None:
    for attempt in (
        lambda: incidents.get("INC-NONE"),
        lambda: incidents.events("INC-NONE"),
        lambda: incidents.append_event("INC-NONE", StageEntered(stage="triage")),
        lambda: incidents.add_evidence("INC-NONE", "k", evidence),
    ):
        with pytest.raises(UnknownIncidentError, match="'INC-NONE'"):
            attempt()


def test_events_come_back_in_their_order_and_type(incidents: Incidents) -> None:
    name = incidents.open(alert()).id
    kept = incidents.append_event(name, StageEntered(stage="triage"))
    assert (kept.seq, kept.incident_id, kept.at) == (2, name, NOON)
    assert incidents.events(name, after=1) == (kept,)


def test_an_event_of_the_same_occasion_is_kept_once(incidents: Incidents) -> None:
    name = incidents.open(alert()).id
    first = incidents.append_event(name, StageEntered(stage="triage"), key="stage:triage")
    assert incidents.append_event(name, StageEntered(stage="triage"), key="stage:triage") == first
    assert len(incidents.events(name)) == 2


def test_progress_is_stamped_and_not_kept(incidents: Incidents) -> None:
    name = incidents.open(alert()).id
    assert incidents.append_event(name, Progress(text="thin")).at == NOON
    assert len(incidents.events(name)) == 1


def test_evidence_of_a_call_is_gathered_once(incidents: Incidents) -> None:
    name = incidents.open(alert()).id
    asked: list[str] = []

    def gather(evidence_id: str) -> Evidence:
        asked.append(evidence_id)
        return evidence(evidence_id)

    first = incidents.add_evidence(name, "disk:/", gather)
    assert incidents.add_evidence(name, "disk:/", gather) == first
    incidents.add_evidence(name, "disk:/var", gather)
    assert asked == ["E1", "E2"]
    assert [e.id for e in incidents.evidence(name)] == ["E1", "E2"]
    assert [e.id for e in incidents.evidence(name, only=["E2"])] == ["E2"]


def test_evidence_that_threads_gather_at_once_has_distinct_ids(incidents: Incidents) -> None:
    name = incidents.open(alert()).id
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: incidents.add_evidence(name, f"call:{n}", evidence).id, range(12)))
    assert sorted(found) == sorted(f"E{n}" for n in range(1, 13))


def test_an_incident_is_run_by_one_at_a_time(incidents: Incidents) -> None:
    name = incidents.open(alert()).id
    with (
        incidents.lock(name),
        pytest.raises(IncidentBusyError, match=f"{name}.*process"),
        incidents.lock(name),
    ):
        pass
    with incidents.lock(name):
        pass


@pytest.mark.sqlite
def test_a_killed_process_frees_its_incident(incidents: Incidents, tmp_path: Path) -> None:
    name = incidents.open(alert()).id
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from watchkeeper.runtime.store import Store\nfrom watchkeeper.runtime.incidents import Incidents\n"
        "with Incidents(Store(Path(sys.argv[1]))).lock(sys.argv[2]):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "w.db"), name], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(IncidentBusyError, match=str(holder.pid)), incidents.lock(name):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with incidents.lock(name):
        pass


def test_decisions_are_kept_once_for_an_occasion(store: Store, incidents: Incidents) -> None:
    name = incidents.open(alert()).id
    decisions = Decisions(store, now=lambda: NOON)
    record = DecisionRecord(
        role="diagnostician",
        question="What is the root cause?",
        options=(Option(text="a full disk", probability=0.7), Option(text="a crash", probability=0.3)),
        chosen=0,
        model="m",
        quantization="int8",
        prompt_digest="0" * 64,
        evidence_ids=("E1",),
    )
    kept = decisions.add(name, record, key="diagnose:1")
    assert (kept.id, kept.at, kept.answer.text) == (f"{name}-D1", NOON, "a full disk")
    assert decisions.add(name, record, key="diagnose:1") == kept
    assert decisions.add(name, record).id == f"{name}-D2"
    assert decisions.get(kept.id) == kept
    with pytest.raises(UnknownRecordError, match="D9"):
        decisions.get(f"{name}-D9")


def test_a_decision_for_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="option 2 was chosen out of 1"):
        DecisionRecord(
            role="r",
            question="q",
            options=(Option(text="a", probability=1),),
            chosen=2,
            model="m",
            quantization="-",
            prompt_digest="",
        )


def test_a_step_planned_again_after_a_crash_is_the_same_step(store: Store, incidents: Incidents) -> None:
    name = incidents.open(alert()).id
    steps = Steps(store, now=lambda: NOON)
    first = steps.add(step(steps.next_id(name, "plan:1"), name), key="plan:1")
    assert first.id == f"{name}-S1"
    assert steps.next_id(name, "plan:1") == first.id
    assert steps.next_id(name, "plan:2") == f"{name}-S2"
    assert steps.add(step(first.id, name), key="plan:1") == first
    assert steps.update(first.id, status=StepStatus.APPLIED, detail="done").status is StepStatus.APPLIED
    assert [s.detail for s in steps.list(name)] == ["done"]
    with pytest.raises(ValueError, match="not the next"):
        steps.add(step(f"{name}-S7", name))


def test_an_alert_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "alert.yaml"
    path.write_text(
        "title: api is down\nhost: web-1\nservice: api\nseverity: warning\n"
        "condition: {kind: tcp, host: 127.0.0.1, port: 8080}\n"
    )
    read = Alert.load(path)
    assert read.condition.fact == "tcp.check"
    assert read.condition.arguments == {"host": "127.0.0.1", "port": 8080}
    assert read.condition.firing == ("check-failing",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: [", "line 1.*not valid YAML"),
        ("title: a\ntitle: b\n", "line 2: key 'title' is written twice"),
        ("", "missing"),
        ("[" * 20_000, "nested too deeply"),
        ("".join(" " * depth + "-\n" for depth in range(1500)), "nested too deeply"),
        ("- a\n", "keys with values are expected"),
        (
            "title: a\nhost: web-1\ncondition: {kind: http, url: http://x/}\nsevirity: high\n",
            "line 4: sevirity: unknown",
        ),
        ("title: a\nhost: web 1\ncondition: {kind: http, url: http://x/}\n", "line 2: host.*'web 1'"),
        ("title: a\nhost: w\ncondition:\n  kind: tcp\n  host: x\n  port: 99999\n", "condition.*99999"),
        ("title: a\nhost: w\ncondition: {kind: ping, url: x}\n", "condition.*ping"),
        ("title: a\nhost: w\ncondition: {fact: disk.usage, firing: []}\n", "firing"),
        (
            "title: a\nhost: w\ncondition: {kind: http, url: http://x/, timeout: 9}\n",
            "by the check in the inv",
        ),
    ],
)
def test_an_alert_that_is_not_one_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "alert.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        Alert.load(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_alert_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml' cannot be read: No such file"):
        Alert.load(tmp_path / "nowhere.yaml")


INVENTORY = Inventory.model_validate(
    {
        "hosts": [
            {
                "name": "web-1",
                "services": [
                    {
                        "name": "api",
                        "supervisor": {"kind": "systemd"},
                        "checks": [{"kind": "http", "url": "http://127.0.0.1:8080/health", "expect": 204}],
                    }
                ],
            }
        ]
    }
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"host": "web-9"}, "'web-9' is not in the inventory"),
        ({"service": "db"}, "'db' is not on host"),
        ({"condition": {"fact": "none.such"}}, "'none.such' is not registered"),
        ({"condition": {"fact": "http.check", "arguments": {"uri": "x"}}}, "http.check"),
        (
            {"condition": {"fact": "http.check", "arguments": {"url": "http://x/"}, "firing": ["failing"]}},
            "http.check never finds 'failing', so .*it finds: check-failing, check-passing",
        ),
        ({}, "it expects 200 from 'http://127.0.0.1:8080/health', the inventory expects 204"),
        (
            {"condition": {"kind": "http", "url": "http://127.0.0.1:1/", "expect": 500}},
            "inventory expects 200",
        ),
    ],
)
def test_an_alert_about_what_is_not_there_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        alert(**changes).check(INVENTORY, Registry([HttpCheckFact(), TcpCheckFact()]))


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "http", "url": "http://127.0.0.1:8080/health", "expect": 204},
        {"kind": "http", "url": "http://127.0.0.1:8080/health"},
        {"kind": "tcp", "host": "127.0.0.1", "port": 8080},
    ],
)
def test_the_short_form_of_a_check_reads_a_fact_that_exists(condition: dict[str, object]) -> None:
    alert(condition=condition, service="api").check(INVENTORY, Registry([HttpCheckFact(), TcpCheckFact()]))
