"""A short campaign of kills: nothing is done twice, lost, unapproved, or comes to another end."""

from __future__ import annotations

import dataclasses

import pytest

from tests.crash_campaign import BY_THE_MOMENT, SCENARIOS, Campaign, End, faults, plan, run, summary
from tests.crashes import Crashes, Job
from tests.lamp import Lamp, folder_in_memory

KILLS = 20
HERE = {"probes that cannot tell", "three actions, the third fails", "refused by the moment"}
"""The scenarios that are killed here; `make crash` kills all."""


@pytest.mark.timeout(1800)
def test_incidents_that_are_killed_anywhere_end_as_if_they_had_not_been() -> None:
    with Crashes() as one, Crashes() as other, folder_in_memory() as memory:
        campaign = Campaign(memory, [scenario for scenario in SCENARIOS if scenario.name in HERE])
        places = campaign.survey(one)
        assert len(places) > 1000
        found = list(run(plan(places, moments=400, limit=KILLS, seed=3), campaign, [one, other]))
    assert faults(found) == []
    assert summary(found)["kills"] >= KILLS - 8  # a moment may come after the end


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=(pytest.mark.crash, pytest.mark.timeout(1800)))])
def test_a_kill_after_a_question_takes_it_from_nobody_though_the_policy_would_allow_it_now(
    kills: int,
) -> None:
    killed = 0
    with Crashes() as server, folder_in_memory() as memory:
        # Where nobody is asked, nothing is killed.
        for number in range(10 * kills):
            folder = memory / str(number)
            folder.mkdir()
            Lamp.dark(folder, switch="off", bulb="dusty")
            job = Job(home=str(folder / "home"), world=str(folder), rules=BY_THE_MOMENT, answer="reject")
            killed += server.run(dataclasses.replace(job, kill="event", only="approval-requested", at=1))
            server.run(job)
            end = End.of(job)
            assert (end.unapproved, end.twice, end.lost, end.waiting) == (0, 0, 0, ())
            if killed == kills:
                break
    assert killed == kills
