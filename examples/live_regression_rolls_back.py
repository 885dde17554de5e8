"""A new version is better on held-out data and does badly once it answers: it is taken back by itself.

    python examples/live_regression_rolls_back.py

What was held out was not what people ask: their words have moved on again. Labels of live answers show it,
the promotion is taken back exactly, and the server is asked which version answers.
"""

from __future__ import annotations

import sys

from lifecycle_world import NAME, NEW, OLD, expect, requests, scripted, world, write


def main() -> int:
    """Promote a version that does badly on live requests; 0 where the one before answers again."""
    with world(scripted(), requests(OLD, 300, seed=1), requests(OLD, 100, seed=2)) as here:
        data = write(here.home / "newer.csv", requests(NEW, 300, seed=3))
        held_out = write(here.home / "held-out.csv", requests(NEW, 150, seed=4))
        aliases = here.versions.aliases(NAME)

        incident = here.retrain(data, held_out, live={"labels": 120, "margin": 0.1})
        outcome = here.follow(incident.id, when_watched=requests(OLD, 120, seed=5))

        expect(outcome, "rolled-back", "outcome")
        expect(here.answering(), 1, "version that answers")
        expect(here.versions.aliases(NAME), aliases, "aliases")
        moves = [(move.alias, move.before, move.after) for move in here.versions.history(NAME)]
        expect(moves[-2:], [("champion", 1, 2), ("champion", 2, 1)], "last moves")
    return 0


if __name__ == "__main__":
    sys.exit(main())
