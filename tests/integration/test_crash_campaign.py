"""A short campaign of kills: nothing is done twice, lost, or comes to another end."""

from __future__ import annotations

import pytest

from tests.crash_campaign import Campaign, faults, plan, run, summary
from tests.crashes import Crashes
from tests.lamp import folder_in_memory

KILLS = 40


@pytest.mark.timeout(1800)
def test_incidents_that_are_killed_anywhere_end_as_if_they_had_not_been() -> None:
    with Crashes() as one, Crashes() as other, folder_in_memory() as memory:
        campaign = Campaign(memory)
        places = campaign.survey(one)
        assert len(places) > 1000
        found = list(run(plan(places, moments=400, limit=KILLS, seed=3), campaign, [one, other]))
    assert faults(found) == []
    assert summary(found)["kills"] >= KILLS - 8  # a moment may come after the end
