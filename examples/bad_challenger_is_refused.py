"""A new version is trained from data whose labels went wrong: it is refused, and the old one still answers.

    python examples/bad_challenger_is_refused.py

Champion and challenger answer the same held-out rows, and are compared row by row. No model is asked: a
person asked for the retraining, and whether it may answer is arithmetic.
"""

from __future__ import annotations

import sys

from lifecycle_world import NAME, OLD, expect, requests, scripted, world, write


def main() -> int:
    """Retrain on bad data; 0 where nothing but the report came of it."""
    with world(scripted(), requests(OLD, 300, seed=1), requests(OLD, 100, seed=2)) as here:
        spoiled = write(here.home / "spoiled.csv", requests(OLD, 300, seed=3, wrong=0.6))
        held_out = write(here.home / "held-out.csv", requests(OLD, 200, seed=4))
        aliases, versions = here.versions.aliases(NAME), len(here.versions.list(NAME))

        outcome = here.follow(here.retrain(spoiled, held_out).id)

        expect(outcome, "refused: worse", "outcome")
        expect(here.answering(), 1, "version that answers")
        expect(here.versions.aliases(NAME), aliases, "aliases")
        expect(len(here.versions.list(NAME)), versions, "versions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
