"""What limits look back at: while they do, it stays, or removing it would lift them."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import or_, select

from watchkeeper.runtime import schema
from watchkeeper.runtime.blast import LONGEST_SPAN
from watchkeeper.runtime.breaker import Breaker
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.limits import Limits
from watchkeeper.runtime.repeats import Repeats
from watchkeeper.runtime.store import Store


def looked_back_at(store: Store, limits: Limits, now: datetime) -> frozenset[str]:
    """Return the incidents whose actions a limit, a breaker or the search for loops may still count.

    A policy may look back as far as any may: each worker has its own, and tomorrow there may be another. A
    breaker that is not closed stays so whatever the age of its failures, and what came back again and again
    counts as long as it does.

    Args:
        store: Where incidents and effects are.
        limits: Those of the settings.
        now: The time.
    """
    effects = schema.effects.c
    spans = (limits.window_seconds, limits.breaker.within_seconds)
    since = now - max(LONGEST_SPAN, *(timedelta(seconds=span) for span in spans))
    times = (
        effects.intended_at,
        effects.completed_at,
        effects.rollback_intended_at,
        effects.rollback_completed_at,
    )
    with store.reading() as connection:
        counted = connection.execute(
            select(effects.incident_id).where(
                effects.state != EffectState.NOT_DONE.value, or_(*(time > since for time in times))
            )
        ).scalars()
        against = [
            failure.step_id
            for status in Breaker(store, limits.breaker, now=lambda: now).list()
            for failure in status.failures
        ]
        failed = connection.execute(select(effects.incident_id).where(effects.step_id.in_(against))).scalars()
        return frozenset(counted) | frozenset(failed) | Repeats(store, limits.repeats).recurring(now)
