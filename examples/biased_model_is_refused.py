"""A new version is better on the whole and fails the people of one site: it is refused.

    python examples/biased_model_is_refused.py

The data to learn from hold wrong labels for one site, whose people use words of their own. The challenger is
better than the champion, which knows few of these words, and would have been promoted by its average. How
differently groups may be treated stands in the policy.
"""

from __future__ import annotations

import sys

from lifecycle_world import NAME, NEW, OLD, Request, expect, requests, scripted, world, write

SWAPPED = {"accounts": "billing", "billing": "network", "network": "accounts"}
POLICY = """
version: 1
bias: {equalized_odds: 0.2, columns: [site]}
rules:
  - {name: ask, decision: ask, reason: A person approves every change.}
"""
SOUTH = {
    "accounts": "badge turnstile lanyard visitor keyfob porter",
    "billing": "voucher stipend tariff levy deposit ledger",
    "network": "antenna masthead repeater coax splice conduit",
}


def main() -> int:
    """Retrain on data that wrong one site; 0 where the version was refused for it."""
    with world(scripted(), requests(OLD, 300, seed=1), requests(OLD, 100, seed=2), policy=POLICY) as here:
        north = requests(NEW, 300, seed=3, site="north")
        south = [
            Request(row.text, SWAPPED[row.label], row.site)
            for row in requests(SOUTH, 80, seed=4, site="south")
        ]
        data = write(here.home / "one-sided.csv", north + south)
        both = requests(NEW, 300, seed=5, site="north") + requests(SOUTH, 100, seed=6, site="south")
        held_out = write(here.home / "held-out.csv", both)

        incident = here.retrain(data, held_out)
        outcome = here.follow(incident.id)

        expect(outcome, "refused: biased", "outcome")
        expect(here.answering(), 1, "version that answers")
        expect(here.versions.aliases(NAME), {"champion": 1}, "aliases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
