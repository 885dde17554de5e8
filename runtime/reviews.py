"""Reviews of decisions: what people say afterwards of what an agent chose; kept beside it, never over it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Row, func, select

from watchkeeper.runtime import schema
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.clock import Clock
from watchkeeper.runtime.decisions import DecisionRecord, Decisions
from watchkeeper.runtime.errors import ReviewError
from watchkeeper.runtime.store import Store


class ReviewVerdict(StrEnum):
    """What a person says of a decision."""

    RIGHT = "right"
    WRONG = "wrong"
    UNSURE = "unsure"


class Review(BaseModel):
    """What a person said of a decision.

    Attributes:
        id: Its place among all reviews.
        decision_id: The decision.
        incident_id: The incident that it was made for.
        at: When (UTC).
        by: Who.
        verdict: Whether it was right.
        should_be: Index of the option that would have been right, where a wrong one was chosen.
        note: Why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    decision_id: str
    incident_id: str
    at: datetime
    by: str
    verdict: ReviewVerdict
    should_be: int | None = None
    note: str = ""


class RoleAccuracy(BaseModel):
    """How often the decisions of a role were right, by the last review of each.

    Attributes:
        role: The role.
        decisions: Its decisions among several options.
        right: Reviewed as right.
        wrong: Reviewed as wrong.
        unsure: Reviewed, and nobody could tell.
        accuracy: Share of right ones among right and wrong ones; None without any.
        stated: Mean probability that the model gave to what it chose, of the same decisions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    decisions: int
    right: int
    wrong: int
    unsure: int
    accuracy: float | None
    stated: float | None


class Reviews:
    """Reviews in the store; each is added, and none is ever changed.

    Args:
        store: Where they are kept.
        audit: Where each is written, too.
        now: The time; by default the store's, which is one for all machines.
    """

    def __init__(self, store: Store, audit: AuditLog, *, now: Clock | None = None) -> None:
        self._store = store
        self._audit = audit
        self._now = now or store.now

    def add(
        self,
        decision_id: str,
        verdict: ReviewVerdict,
        *,
        by: str,
        should_be: int | None = None,
        note: str = "",
    ) -> Review:
        """Keep a review; one that cannot be written into the audit log is not kept.

        Args:
            decision_id: The decision.
            verdict: Whether it was right.
            by: Who says so.
            should_be: Index of the option that would have been right.
            note: Why.

        Raises:
            UnknownRecordError: If there is no such decision.
            ReviewError: If the option is none, or does not go with the verdict.
            AuditError: If the audit log cannot be written.
        """
        table = schema.decision_reviews
        record = Decisions(self._store).get(decision_id)
        _check(record, verdict, should_be)
        with self._store.transaction() as connection:
            number = connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one() + 1
            review = Review(
                id=number,
                decision_id=record.id,
                incident_id=record.incident_id,
                at=self._now(),
                by=by,
                verdict=verdict,
                should_be=should_be,
                note=note,
            )
            connection.execute(table.insert().values({**review.model_dump(), "verdict": verdict.value}))
            self._audit.append("decision-reviewed", review.model_dump(mode="json"))
        return review

    def list(self, decision_id: str) -> tuple[Review, ...]:
        """Return what was said of a decision, the first first."""
        table = schema.decision_reviews
        query = select(table).where(table.c.decision_id == decision_id).order_by(table.c.id)
        with self._store.reading() as connection:
            return tuple(_review(row) for row in connection.execute(query))

    def unreviewed(self, incident_id: str | None = None, *, limit: int = 100) -> tuple[DecisionRecord, ...]:
        """Return decisions among several options that nobody reviewed, the newest first."""
        found = (
            record for record, review in self._with_last(incident_id) if review is None and _is_open(record)
        )
        return tuple(record for record, _ in zip(found, range(limit), strict=False))

    def latest(self) -> tuple[tuple[DecisionRecord, Review | None], ...]:
        """Return all decisions with the last review of each, the newest first."""
        return tuple(self._with_last(None))

    def summary(self) -> tuple[RoleAccuracy, ...]:
        """Return how often each role was right."""
        by_role: dict[str, list[tuple[DecisionRecord, Review | None]]] = {}
        for record, review in self._with_last(None):
            if _is_open(record):
                by_role.setdefault(record.role, []).append((record, review))
        return tuple(_accuracy(role, by_role[role]) for role in sorted(by_role))

    def export(self, path: Path, *, reviewed: bool) -> int:
        """Write decisions with their last review as JSON lines into a new file; returns how many.

        Args:
            path: The file; written whole or not at all.
            reviewed: Only those that somebody reviewed.

        Raises:
            ReviewError: If the file is there or cannot be written.
        """
        lines = [
            json.dumps(
                {
                    "decision": record.model_dump(mode="json"),
                    "review": review.model_dump(mode="json") if review else None,
                }
            )
            for record, review in self._with_last(None)
            if review is not None or not reviewed
        ]
        write_new(path, lines)
        return len(lines)

    def _with_last(self, incident_id: str | None) -> Iterator[tuple[DecisionRecord, Review | None]]:
        """Decisions with the last review of each, the newest first."""
        decisions, table = schema.decisions, schema.decision_reviews
        query = select(decisions.c.id, decisions.c.body).order_by(
            decisions.c.at.desc(), decisions.c.number.desc()
        )
        if incident_id is not None:
            query = query.where(decisions.c.incident_id == incident_id)
        with self._store.reading() as connection:
            last = {
                row.decision_id: _review(row)
                for row in connection.execute(select(table).order_by(table.c.id))
            }
            rows = connection.execute(query).all()
        for row in rows:
            yield DecisionRecord.model_validate_json(row.body), last.get(row.id)


def write_new(path: Path, lines: Sequence[str]) -> None:
    """Write lines into a new file that only this user may read, whole or not at all.

    Raises:
        ReviewError: If the file is there or cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("x", encoding="utf-8") as file:
            part.chmod(0o600)
            file.writelines(line + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # unlike a rename, it replaces nothing
    except OSError as error:
        raise ReviewError(
            f"file {str(path)!r} cannot be written: {error.strerror}; nothing is replaced"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _check(record: DecisionRecord, verdict: ReviewVerdict, should_be: int | None) -> None:
    if should_be is None:
        return
    if verdict is not ReviewVerdict.WRONG:
        raise ReviewError(
            f"decision {record.id!r} is said to be {verdict.value}: no other option goes with it"
        )
    if not 0 <= should_be < len(record.options):
        raise ReviewError(
            f"decision {record.id!r} has options 1 to {len(record.options)}, not {should_be + 1}"
        )
    if should_be == record.chosen:
        raise ReviewError(f"option {should_be + 1} of decision {record.id!r} is the one that was chosen")


def _is_open(record: DecisionRecord) -> bool:
    return len(record.options) > 1


def _accuracy(role: str, pairs: list[tuple[DecisionRecord, Review | None]]) -> RoleAccuracy:
    said = {
        verdict: [r for r, v in pairs if v is not None and v.verdict is verdict] for verdict in ReviewVerdict
    }
    right, wrong = said[ReviewVerdict.RIGHT], said[ReviewVerdict.WRONG]
    judged = right + wrong
    return RoleAccuracy(
        role=role,
        decisions=len(pairs),
        right=len(right),
        wrong=len(wrong),
        unsure=len(said[ReviewVerdict.UNSURE]),
        accuracy=len(right) / len(judged) if judged else None,
        stated=sum(r.answer.probability for r in judged) / len(judged) if judged else None,
    )


def _review(row: Row[tuple[object, ...]]) -> Review:
    return Review.model_validate(dict(row._mapping))
