"""Windows of a policy follow the clock on the wall of their zone, whatever happens to it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_policy import REGISTRY, request
from watchkeeper.runtime.errors import PolicyError
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.policy_windows import Window

BERLIN = ZoneInfo("Europe/Berlin")


def window(text: str) -> Window:
    return Window.model_validate(yaml.safe_load(text))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def minutes_open(opened: Window, day: str, zone: ZoneInfo) -> int:
    """Count the minutes of a local day in which a window is open, by the clock of physics."""
    start = datetime.fromisoformat(day).replace(tzinfo=zone).astimezone(UTC)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=zone).astimezone(UTC)
    total = int((end - start) / timedelta(minutes=1))
    return sum(opened.is_open(start + timedelta(minutes=minute)) for minute in range(total))


OFFICE = "{zone: Europe/Berlin, weekly: [{days: [mon-fri], from: '08:00', to: '18:00'}]}"
NIGHTLY = "{zone: Europe/Berlin, weekly: [{from: 22:00, to: '04:00'}]}"
SATURDAY = "{zone: Europe/Berlin, weekly: [{days: sat, from: '22:00', to: '04:00'}]}"
EARLY = "{zone: Europe/Berlin, weekly: [{from: '02:00', to: '03:00'}]}"


@pytest.mark.parametrize(
    ("text", "moment", "expected"),
    [
        (OFFICE, "2026-11-23T07:59:59+01:00", False),
        (OFFICE, "2026-11-23T08:00:00+01:00", True),
        (OFFICE, "2026-11-23T17:59:59+01:00", True),
        (OFFICE, "2026-11-23T18:00:00+01:00", False),
        (OFFICE, "2026-11-22T12:00:00+01:00", False),
        (OFFICE, "2026-11-23T07:00:00+00:00", True),
        (OFFICE, "2026-07-06T06:00:00+00:00", True),
        (OFFICE, "2026-07-06T05:59:00+00:00", False),
        (NIGHTLY, "2026-11-23T21:59:00+01:00", False),
        (NIGHTLY, "2026-11-23T22:00:00+01:00", True),
        (NIGHTLY, "2026-11-24T03:59:00+01:00", True),
        (NIGHTLY, "2026-11-24T04:00:00+01:00", False),
        (SATURDAY, "2026-11-28T23:00:00+01:00", True),
        (SATURDAY, "2026-11-29T03:00:00+01:00", True),
        (SATURDAY, "2026-11-28T03:00:00+01:00", False),
        (SATURDAY, "2026-11-29T23:00:00+01:00", False),
        ("{weekly: [{days: [sat-mon], from: '00:00', to: '24:00'}]}", "2026-11-23T23:59:00Z", True),
        ("{weekly: [{days: [sat-mon], from: '00:00', to: '24:00'}]}", "2026-11-24T00:00:00Z", False),
        (
            "{weekly: [{from: '08:00', to: '12:00'}, {from: '11:00', to: '14:00'}]}",
            "2026-11-24T11:30:00Z",
            True,
        ),
        (
            "{weekly: [{from: '08:00', to: '12:00'}, {from: '11:00', to: '14:00'}]}",
            "2026-11-24T13:00:00Z",
            True,
        ),
        (
            "{weekly: [{from: '08:00', to: '12:00'}, {from: '11:00', to: '14:00'}]}",
            "2026-11-24T14:00:00Z",
            False,
        ),
    ],
)
def test_weekly_ranges_are_those_of_the_zones_clock(text: str, moment: str, expected: bool) -> None:
    assert window(text).is_open(at(moment)) is expected


@pytest.mark.parametrize(
    ("text", "day", "minutes"),
    [
        (EARLY, "2026-03-28", 60),
        (EARLY, "2026-03-29", 0),  # the clock goes from 02:00 to 03:00
        (EARLY, "2026-10-25", 120),  # and back from 03:00 to 02:00
        (OFFICE, "2026-03-30", 600),
        (OFFICE, "2026-10-26", 600),
        (NIGHTLY, "2026-03-29", 300),
        (NIGHTLY, "2026-10-25", 420),
        ("{zone: Europe/Berlin, weekly: [{from: '00:00', to: '24:00'}]}", "2026-03-29", 23 * 60),
        ("{zone: Europe/Berlin, weekly: [{from: '00:00', to: '24:00'}]}", "2026-10-25", 25 * 60),
        ("{zone: Europe/Berlin, weekly: [{from: '01:30', to: '02:30'}]}", "2026-03-29", 30),
        ("{zone: Europe/Berlin, weekly: [{from: '01:30', to: '02:30'}]}", "2026-10-25", 90),
    ],
)
def test_both_changes_of_the_clock_are_right(text: str, day: str, minutes: int) -> None:
    assert minutes_open(window(text), day, BERLIN) == minutes


def test_an_hour_that_comes_twice_is_within_both_times() -> None:
    early = window(EARLY)
    assert early.is_open(at("2026-10-25T02:30:00+02:00"))
    assert early.is_open(at("2026-10-25T02:30:00+01:00"))
    assert not early.is_open(at("2026-10-25T03:00:00+01:00"))


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-12-19T23:59:00+01:00", True),
        ("2026-12-20T00:00:00+01:00", False),
        ("2027-01-02T23:59:00+01:00", False),
        ("2027-01-03T00:00:00+01:00", True),
    ],
)
def test_a_freeze_closes_whatever_else_holds_and_its_last_day_is_included(
    moment: str, expected: bool
) -> None:
    frozen = window(
        "{zone: Europe/Berlin, weekly: [{from: '00:00', to: '24:00'}],"
        " dated: [{from: 2026-12-24, to: 2026-12-24}],"
        " freezes: [{from: 2026-12-20, to: 2027-01-02, reason: year's end}]}"
    )
    assert frozen.is_open(at(moment)) is expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-12-01T19:59:00+01:00", False),
        ("2026-12-01T20:00:00+01:00", True),
        ("2026-12-02T01:59:00+01:00", True),
        ("2026-12-02T02:00:00+01:00", False),
        ("2026-10-25T00:30:00Z", True),
        ("2026-10-25T01:30:00Z", False),
    ],
)
def test_dated_ranges_come_once(moment: str, expected: bool) -> None:
    once = window(
        "{zone: Europe/Berlin, dated: [{from: '2026-12-01T20:00', to: 2026-12-02T02:00:00},"
        " {from: 2026-10-25T02:30:00+02:00, to: '2026-10-25T02:30+01:00'}]}"
    )
    assert once.is_open(at(moment)) is expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{zone: Europe/Berln, weekly: [{from: '08:00', to: '09:00'}]}", "is 'Europe/Berlin' meant"),
        ("{zone: ../etc/passwd, weekly: [{from: '08:00', to: '09:00'}]}", "not an IANA time zone"),
        ("{zone: Europe, weekly: [{from: '08:00', to: '09:00'}]}", "not an IANA time zone"),
        ("{}", "never open"),
        ("{freezes: [{from: 2026-12-20, to: 2026-12-21}]}", "never open"),
        ("{weekly: [{from: '08:00', to: '08:00'}]}", "begins when it ends"),
        ("{weekly: [{from: '24:00', to: '08:00'}]}", "begins when it ends"),
        ("{weekly: [{from: '25:00', to: '08:00'}]}", "a time of the day"),
        ("{weekly: [{from: '08:60', to: '09:00'}]}", "a time of the day"),
        ("{weekly: [{from: 22:00:30, to: '09:00'}]}", "a time of the day"),
        ("{weekly: [{from: true, to: '09:00'}]}", "a time of the day"),
        ("{weekly: [{from: 9, to: 17}]}", 'write "09:00" for 9 o.clock'),
        ("{weekly: [{days: [funday], from: '08:00', to: '09:00'}]}", "'funday' is neither a day"),
        ("{weekly: [{days: [], from: '08:00', to: '09:00'}]}", "at least 1"),
        ("{weekly: [{days: 3, from: '08:00', to: '09:00'}]}", "days are a list"),
        ("{dated: [{from: soon, to: 2026-12-20}]}", "a date or a moment"),
        ("{dated: [{from: 2026-12-21, to: 2026-12-20}]}", "before it begins"),
        ("{dated: [{from: 2026-12-20, to: 9999-12-31}]}", "reaches beyond the calendar"),
        ("{zone: Europe/Berlin, dated: [{from: 0001-01-01, to: 2026-12-20}]}", "reaches beyond the calendar"),
        ("{zone: Europe/Berlin, dated: [{from: '2026-03-29T02:30', to: 2026-12-20}]}", "does not exist"),
        ("{zone: Europe/Berlin, dated: [{from: '2026-10-25T02:30', to: 2026-12-20}]}", "comes twice"),
    ],
)
def test_a_window_with_a_mistake_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(f"version: 1\nwindows:\n  odd:\n    {text}\n")
    with pytest.raises(PolicyError, match=said) as caught:
        Policy.load(path, REGISTRY)
    assert "windows.odd" in str(caught.value)


@given(
    moment=st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1)),
    start=st.integers(0, 1439),
    length=st.integers(1, 1439),
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
    ),
)
def test_a_range_and_the_rest_of_the_day_leave_no_moment_out_and_share_none(
    moment: datetime, start: int, length: int, zone: str
) -> None:
    end = (start + length) % 1440
    begins, ends = (f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (start, end))
    one = Window.model_validate({"zone": zone, "weekly": [{"from": begins, "to": ends}]})
    rest = Window.model_validate({"zone": zone, "weekly": [{"from": ends, "to": begins}]})
    aware = moment.replace(tzinfo=UTC)
    assert one.is_open(aware) is not rest.is_open(aware)


POLICY = """version: 1
windows:
  business-hours: {zone: Europe/Berlin, weekly: [{days: [mon-fri], from: "08:00", to: "18:00"}]}
  maintenance: {zone: Europe/Berlin, weekly: [{days: [sat], from: 22:00, to: "04:00"}]}
rules:
  - {name: asked, decision: ask}
  - name: free-in-maintenance
    match: {tools: [service.*], windows: [maintenance]}
    decision: allow
  - name: hands-off-in-business-hours
    when: in_window("business-hours") && host.labels.role == 'web'
    decision: deny
    reason: People work.
    examples:
      match: [{action: service.restart, host: {labels: {role: web}}, now: 2026-11-23T09:00:00+01:00}]
      no_match: [{action: service.restart, host: {labels: {role: web}}, now: 2026-11-23T19:00:00+01:00}]
"""


def loaded(tmp_path: Path, text: str = POLICY) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return Policy.load(path, REGISTRY)


def test_rules_speak_of_windows_by_name(tmp_path: Path) -> None:
    policy = loaded(tmp_path)
    monday = policy.decide(request(now=at("2026-11-23T09:00:00+01:00")))
    assert (monday.decision, monday.reason) == (Verdict.DENY, "People work.")
    assert monday.windows == {"business-hours": True, "maintenance": False}
    evening = policy.decide(request(now=at("2026-11-23T19:00:00+01:00")))
    assert (evening.decision, evening.rule) == (Verdict.ASK, "asked")
    assert [t.detail for t in evening.trace if t.rule == "free-in-maintenance"] == [
        "none of its windows is open: maintenance"
    ]
    night = policy.decide(request(now=at("2026-11-29T01:00:00+01:00")))
    assert [t.outcome for t in night.trace if t.rule == "free-in-maintenance"] == ["matched"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("match: {windows: [nights]}", r"match\.windows\.0: rule 'r': window 'nights' is not defined"),
        ("when: in_window('nights')", r"when: rule 'r': window 'nights' is not defined"),
        ("when: in_window(host.name)", "in_window takes the name of a window"),
        ("when: \"'maintenance'.in_window()\"", "in_window takes the name of a window"),
        ("when: in_window()", "in_window takes the name of a window"),
        (
            "when: in_window('maintenance'), examples: {match: [{action: service.restart}]}",
            "its example needs a moment",
        ),
        (
            "match: {windows: [maintenance]}, examples: {no_match: [{action: service.restart}]}",
            "its example needs a moment",
        ),
    ],
)
def test_a_window_that_is_not_there_is_refused_at_load(tmp_path: Path, rule: str, said: str) -> None:
    text = POLICY + f"  - {{name: r, decision: deny, {rule}}}\n"
    with pytest.raises(PolicyError, match=said):
        loaded(tmp_path, text)


def test_a_rule_that_depends_on_a_window_is_certain_at_no_time(tmp_path: Path) -> None:
    from tests.unit.test_policy import HOST, Restart

    never: dict[str, Any] = {"{name: d, decision: deny, match: {windows: [maintenance]}}": True}
    never["{name: d, decision: deny, when: in_window('maintenance')}"] = True
    never["{name: d, decision: deny}"] = False
    for rule, expected in never.items():
        assert loaded(tmp_path, POLICY + f"  - {rule}\n").allows_ever(Restart(), HOST) is expected


def test_the_digest_changes_with_a_window(tmp_path: Path) -> None:
    other = loaded(tmp_path, POLICY.replace('to: "18:00"', 'to: "18:30"')).digest
    assert loaded(tmp_path).digest != other
