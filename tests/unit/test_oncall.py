"""Who is on call, at any moment and on the days on which clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from watchkeeper.runtime.escalation_rules import Hours, Level, Plan, Rotation, Who
from watchkeeper.runtime.oncall import first_level, is_open, on_call, shifts
from watchkeeper.runtime.times import parse_moment

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu")


def rotation(**values: object) -> Rotation:
    given_: dict[str, object] = {
        "zone": "Europe/Berlin",
        "every": "week",
        "at": "09:00",
        "start": date(2026, 1, 5),
        "members": ["alice", "bob"],
    }
    return Rotation.model_validate(given_ | values)


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def test_members_take_turns_at_the_local_time() -> None:
    weekly = rotation()
    assert on_call(weekly, berlin("2026-01-05T09:00")).member == "alice"
    assert on_call(weekly, berlin("2026-01-12T08:59:59")).member == "alice"
    assert on_call(weekly, berlin("2026-01-12T09:00")).member == "bob"
    assert on_call(weekly, berlin("2026-01-19T09:00")).member == "alice"
    assert on_call(weekly, berlin("2026-01-05T08:59")).member == "bob"  # counted backwards


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-28", 23), ("2026-03-29", 24), ("2026-10-24", 25), ("2026-10-25", 24)],
    ids=["spring-before", "spring-after", "autumn-before", "autumn-after"],
)
def test_a_day_on_which_clocks_change_is_shorter_or_longer(day: str, hours: int) -> None:
    shift = on_call(rotation(every="day"), berlin(f"{day}T12:00"))
    assert shift.until - shift.since == timedelta(hours=hours)
    for moment in (shift.since, shift.until):
        assert moment.astimezone(BERLIN).time() == time(9)


def test_a_hand_over_that_clocks_skip_is_as_much_later() -> None:
    daily = rotation(every="day", at="02:30")
    shift = on_call(daily, berlin("2026-03-29T12:00"))
    assert shift.since == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # 03:30, the clock after 01:59 being 03:00
    assert on_call(daily, datetime(2026, 3, 29, 1, 29, tzinfo=UTC)).member != shift.member


def test_a_hand_over_that_clocks_show_twice_is_at_the_first_time() -> None:
    daily = rotation(every="day", at="02:30")
    first, second = (datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1))
    assert on_call(daily, second).since == first
    assert on_call(daily, first) == on_call(daily, second)
    assert on_call(daily, first - timedelta(seconds=1)).member != on_call(daily, first).member


def test_a_day_that_a_zone_skips_leaves_no_hole() -> None:
    apia = rotation(zone="Pacific/Apia", every="day", start=date(2011, 12, 1))
    at = datetime(2011, 12, 30, 18, tzinfo=UTC)  # 08:00 on the 31st there; there was no 30th
    shift = on_call(apia, at)
    assert shift.since <= at < shift.until


def test_an_override_takes_the_turn_and_gives_it_back() -> None:
    covered = rotation(overrides=[{"who": "bob", "from": "2026-01-06 08:00", "until": "2026-01-07 20:00"}])
    seen = shifts(covered, berlin("2026-01-05T12:00"), berlin("2026-01-12T12:00"))
    assert [(s.member, s.override) for s in seen] == [
        ("alice", False),
        ("bob", True),
        ("alice", False),
        ("bob", False),
    ]
    assert seen[1].since == berlin("2026-01-06T08:00")
    assert seen[2].until == berlin("2026-01-12T09:00")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"members": []}, "at least 1"),
        ({"zone": "Mars/Olympus"}, "no such time zone"),
        ({"at": 1080}, "in quotes"),
        ({"at": "9:00"}, "in quotes"),
        ({"every": "month"}, "'day' or 'week'"),
        (
            {"overrides": [{"who": "bob", "from": "2026-01-07 08:00", "until": "2026-01-06 08:00"}]},
            "before it",
        ),
        ({"overrides": [{"who": "bob", "from": "tomorrow", "until": "2026-01-06 08:00"}]}, "a date with"),
        ({"overrides": [{"who": "bob", "from": "2026-02-30 08:00", "until": "2026-03-06 08:00"}]}, "day"),
        (
            {"overrides": [{"who": "bob", "from": "2026-03-29 02:30", "until": "2026-03-30 08:00"}]},
            "clocks skip it",
        ),
        (
            {"overrides": [{"who": "bob", "from": "2026-10-25 02:30", "until": "2026-10-30 08:00"}]},
            "clocks show it twice",
        ),
        (
            {
                "overrides": [
                    {"who": "bob", "from": "2026-01-06 08:00", "until": "2026-01-08 08:00"},
                    {"who": "alice", "from": "2026-01-07 08:00", "until": "2026-01-09 08:00"},
                ]
            },
            "overlap",
        ),
    ],
)
def test_what_does_not_tell_who_is_on_call_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        rotation(**values)


def test_an_offset_tells_which_of_two_equal_times_is_meant() -> None:
    late = rotation(overrides=[{"who": "bob", "from": "2026-10-25 02:30+01:00", "until": "2026-10-25 06:00"}])
    assert not on_call(late, datetime(2026, 10, 25, 0, 30, tzinfo=UTC)).override
    assert on_call(late, datetime(2026, 10, 25, 1, 30, tzinfo=UTC)).override


def test_an_unquoted_moment_of_yaml_is_local() -> None:
    assert parse_moment(datetime(2026, 1, 6, 8)) == datetime(2026, 1, 6, 8)


@given(
    zone=st.sampled_from(ZONES),
    every=st.sampled_from(["day", "week"]),
    at=st.times(time(0), time(23, 59)),
    count=st.integers(1, 5),
    moment=st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_every_moment_belongs_to_one_shift_and_shifts_meet(
    zone: str, every: str, at: time, count: int, moment: datetime
) -> None:
    members = [f"m{number}" for number in range(count)]
    turns = rotation(zone=zone, every=every, at=f"{at:%H:%M}", members=members, start=date(2020, 6, 1))
    shift = on_call(turns, moment)
    assert shift.since <= moment < shift.until
    assert on_call(turns, shift.since).member == shift.member
    following = on_call(turns, shift.until)
    assert following.since == shift.until
    length = following.since - shift.since
    assert timedelta(days=turns.days) - timedelta(hours=24) <= length
    assert length <= timedelta(days=turns.days, hours=24)
    if zone != "Pacific/Apia":
        after = members[(members.index(shift.member) + 1) % count]
        assert following.member == after


def test_business_hours_go_by_local_clocks() -> None:
    hours = Hours.model_validate({"zone": "Europe/Berlin", "from": "08:00", "until": "18:00", "outside": 2})
    assert is_open(hours, datetime(2026, 3, 27, 7, 0, tzinfo=UTC))  # 08:00, winter
    assert not is_open(hours, datetime(2026, 3, 27, 6, 59, tzinfo=UTC))
    assert is_open(hours, datetime(2026, 3, 30, 6, 0, tzinfo=UTC))  # 08:00, summer
    assert not is_open(hours, datetime(2026, 3, 30, 16, 0, tzinfo=UTC))
    assert not is_open(hours, datetime(2026, 3, 28, 10, 0, tzinfo=UTC))  # a Saturday
    everyone = Who(everyone=True)
    plan = Plan(levels=(Level(who=everyone, wait=timedelta(minutes=5)), Level(who=everyone)), hours=hours)
    assert first_level(plan, datetime(2026, 3, 30, 10, 0, tzinfo=UTC)) == 1
    assert first_level(plan, datetime(2026, 3, 30, 22, 0, tzinfo=UTC)) == 2
