"""Predictions that were made, kept with their ids until their labels arrive: bounded, in a SQLite file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict, Unpack

from pydantic import JsonValue
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    create_engine,
    delete,
    event,
    func,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError

from watchkeeper.tools.durable import private_folder
from watchkeeper.tools.errors import RecordingError

FILE = "predictions.db"

ANSWERING = ("champion", "canary")
"""Roles in which clients get the answers."""

FIRST = 500
"""The first answers of a version, which later ones are compared with."""

_metadata = MetaData()
_table = Table(
    "predictions",
    _metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("predictor", String, nullable=False),
    Column("id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("role", String, nullable=False),
    Column("at", String, nullable=False),
    Column("asked", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("label", Text),
    Column("labelled_at", String),
    Column("seconds", Float),
    UniqueConstraint("predictor", "id", "role"),
    Index("predictions_by_time", "predictor", "at"),
    sqlite_autoincrement=True,
)
# By the minute: bounded however much is asked, and nothing of a row is in it.
_counts = Table(
    "row_counts",
    _metadata,
    Column("predictor", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("role", String, primary_key=True),
    Column("minute", String, primary_key=True),
    Column("answered", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One prediction.

    Attributes:
        predictor: What answered.
        id: Its id; the same for all who answered the same row.
        version: The version that answered.
        role: As what: ``champion``, ``canary`` or ``shadow``.
        at: When.
        asked: The row.
        answer: The answer.
        label: What was right; None while nobody knows.
        seconds: How long its request waited until it was answered; None where nobody measured.
    """

    predictor: str
    id: str
    version: int
    role: str
    at: datetime
    asked: Mapping[str, JsonValue]
    answer: Mapping[str, JsonValue]
    label: JsonValue = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows a version answered, and at how many it failed."""

    answered: int
    failed: int

    @property
    def rows(self) -> int:
        """The rows that it was asked."""
        return self.answered + self.failed


class Which(TypedDict, total=False):
    """Some of the predictions of a predictor.

    Attributes:
        version: Of this version only.
        roles: Answered in one of these roles only; any where empty.
        labelled: Only those whose label is known.
        since: Answered at this time or later only.
    """

    version: int
    roles: Sequence[str]
    labelled: bool
    since: datetime


class Predictions:
    """Predictions in a file: the newest of each predictor, and the first of each version that still answers.

    A prediction is on the disk's side of the process when `record` returns: killing the process loses none.
    (After a power cut the last moments may be missing; the file is whole.)

    Args:
        path: The file; made where it is not there.
        keep_rows: Predictions of one predictor that are kept.
        keep_days: Days after which one is forgotten.
        keep_first: First answers of a version that are kept as long as later ones of it are.

    Raises:
        RecordingError: If it cannot be opened.
    """

    def __init__(
        self, path: Path, *, keep_rows: int = 100_000, keep_days: float = 90, keep_first: int = FIRST
    ) -> None:
        self._path = path
        self._keep_rows = keep_rows
        self._keep_days = keep_days
        self._keep_first = keep_first
        self._until_pruning = 0
        try:
            private_folder(path.parent)
        except OSError as error:
            raise RecordingError(f"{str(path)!r} cannot be opened: {error.strerror}") from error
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
        event.listen(self._engine, "connect", _set_up)
        with self._writing() as connection:
            _metadata.create_all(connection)
            _add_what_is_missing(connection)

    def record(self, predictions: Sequence[Recorded]) -> frozenset[str]:
        """Keep predictions; one that is kept already stays as it is, and an id of another row keeps none.

        Returns:
            The ids that are kept for another row: what was right of one would be taken for the other.

        Raises:
            RecordingError: If they cannot be written.
        """
        if not predictions:
            return frozenset()
        with self._writing() as connection:
            taken = _taken(connection, predictions)
            rows = [
                {
                    "predictor": one.predictor,
                    "id": one.id,
                    "version": one.version,
                    "role": one.role,
                    "at": _text(one.at),
                    "asked": json.dumps(dict(one.asked)),
                    "answer": json.dumps(dict(one.answer)),
                    "seconds": one.seconds,
                }
                for one in predictions
                if one.id not in taken
            ]
            if rows:
                connection.execute(insert(_table).on_conflict_do_nothing(), rows)
            asked = Counter((one.predictor, one.version, one.role, _minute(one.at)) for one in predictions)
            for place, number in asked.items():
                _add(connection, place, answered=number)
        self._until_pruning -= len(rows)
        if self._until_pruning <= 0:
            self._until_pruning = max(1, self._keep_rows // 20)
            self.prune(max(one.at for one in predictions))
        return taken

    def record_failure(self, predictor: str, version: int, role: str, rows: int, at: datetime) -> None:
        """Count rows that a version could not answer; nothing else is kept of them.

        Raises:
            RecordingError: If it cannot be written.
        """
        with self._writing() as connection:
            _add(connection, (predictor, version, role, _minute(at)), failed=rows)

    def tally(
        self,
        predictor: str,
        *,
        version: int,
        roles: Sequence[str],
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Tally:
        """Return how many rows a version answered in some roles, and at how many it failed.

        Args:
            predictor: Its predictor.
            version: The version.
            roles: As what it was asked.
            since: From the minute of this time on; from the first on where None.
            until: Up to the minute of this time, without it; up to now where None.

        Raises:
            RecordingError: If they cannot be read.
        """
        query = _counted(predictor, version, roles)
        if since is not None:
            query = query.where(_counts.c.minute >= _minute(since))
        if until is not None:
            query = query.where(_counts.c.minute < _minute(until))
        with self._translated(), self._engine.connect() as connection:
            _, answered, failed = connection.execute(query).one()
        return Tally(answered or 0, failed or 0)

    def minutes(
        self, predictor: str, *, version: int, roles: Sequence[str], last: int
    ) -> tuple[tuple[datetime, Tally], ...]:
        """Return how many rows a version answered and failed at, by the minute, without those of no row.

        Args:
            predictor: Its predictor.
            version: The version.
            roles: As what it was asked.
            last: No more than so many minutes, the newest; the oldest of them first.

        Raises:
            RecordingError: If they cannot be read.
        """
        minute = _counts.c.minute
        query = _counted(predictor, version, roles).group_by(minute).order_by(minute.desc()).limit(last)
        with self._translated(), self._engine.connect() as connection:
            found = connection.execute(query).all()[::-1]
        return tuple((datetime.fromisoformat(at), Tally(answered, failed)) for at, answered, failed in found)

    def label(self, predictor: str, labels: Mapping[str, JsonValue], at: datetime) -> tuple[str, ...]:
        """Say what was right, by id; None takes back what was said.

        Returns:
            The ids of which no prediction is kept.

        Raises:
            RecordingError: If it cannot be written.
        """
        unknown = []
        with self._writing() as connection:
            for id_, label in labels.items():
                done = connection.execute(
                    update(_table)
                    .where(_table.c.predictor == predictor, _table.c.id == id_)
                    .values(
                        label=None if label is None else json.dumps(label),
                        labelled_at=None if label is None else _text(at),
                    )
                )
                if done.rowcount == 0:
                    unknown.append(id_)
        return tuple(unknown)

    def list(
        self, predictor: str, *, last: int | None = None, **which: Unpack[Which]
    ) -> tuple[Recorded, ...]:
        """Return predictions, the oldest first.

        Args:
            predictor: Whose.
            last: No more than so many, the newest.
            **which: Only these of them; see `Which`.

        Raises:
            RecordingError: If they cannot be read.
        """
        query = _of(predictor, **which).order_by(_table.c.seq.desc())
        if last is not None:
            query = query.limit(last)
        with self._translated(), self._engine.connect() as connection:
            return tuple(_recorded(row) for row in reversed(connection.execute(query).all()))

    def ends(
        self, predictor: str, version: int, *, roles: Sequence[str] = ANSWERING, first: int = FIRST, last: int
    ) -> tuple[tuple[Recorded, ...], tuple[Recorded, ...]]:
        """Return the first predictions of a version and its newest ones, the oldest first and none twice.

        Args:
            predictor: Whose.
            version: Of which version.
            roles: Answered in one of these roles only; any where empty.
            first: No more than so many of the first.
            last: No more than so many of the newest; one that is both is among these.

        Raises:
            RecordingError: If they cannot be read.
        """
        seq, query = _table.c.seq, _of(predictor, version=version, roles=roles)
        with self._translated(), self._engine.connect() as connection:
            newest = connection.execute(query.order_by(seq.desc()).limit(last)).all()[::-1]
            before = query.where(seq < newest[0].seq) if newest else query
            oldest = connection.execute(before.order_by(seq).limit(first)).all()
        return tuple(map(_recorded, oldest)), tuple(map(_recorded, newest))

    def count(self, predictor: str, **which: Unpack[Which]) -> int:
        """Return how many predictions `list` would, without reading them."""
        query = _of(predictor, **which).with_only_columns(func.count())
        with self._translated(), self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def prune(self, now: datetime) -> int:
        """Forget what is too old or too much; returns how many predictions that were.

        Counts of rows stay for as long as the first answers that were made meanwhile.
        """
        removed = 0
        oldest = now - timedelta(days=self._keep_days)
        with self._writing() as connection:
            for (name,) in connection.execute(select(_table.c.predictor).distinct()).all():
                removed += self._prune(connection, name, _text(oldest))
            self._prune_counts(connection, _minute(oldest))
        return removed

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def _prune(self, connection: Connection, name: str, oldest: str) -> int:
        seq, version = _table.c.seq, _table.c.version
        own = _table.c.predictor == name
        by_age = select(seq).where(own).order_by(seq.desc())
        last = connection.execute(by_age.offset(self._keep_rows).limit(1)).scalar_one_or_none()
        gone = or_(_table.c.at < oldest, seq <= (0 if last is None else last))
        answering = and_(own, _table.c.role.in_(ANSWERING))
        still = set(connection.scalars(select(version).where(answering, not_(gone)).distinct()))
        removed = 0
        for number in connection.scalars(select(version).where(own).distinct()).all():
            lost = delete(_table).where(own, version == number, gone)
            if number in still:
                first = select(seq).where(answering, version == number).order_by(seq).limit(self._keep_first)
                lost = lost.where(seq.not_in(first))
            removed += connection.execute(lost).rowcount
        return removed

    def _prune_counts(self, connection: Connection, oldest: str) -> None:
        gone, own = _counts.c.minute < oldest, (_counts.c.predictor, _counts.c.version)
        for name, number in connection.execute(select(*own).where(gone).distinct()).all():
            first = (
                _of(name, version=number, roles=ANSWERING)
                .order_by(_table.c.seq)
                .limit(self._keep_first)
                .subquery()
            )
            until = connection.scalar(select(func.max(first.c.at)))
            lost = delete(_counts).where(own[0] == name, own[1] == number, gone)
            if until is not None:
                lost = lost.where(_counts.c.minute > _minute(datetime.fromisoformat(until)))
            connection.execute(lost)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise RecordingError(
                f"the predictions in {str(self._path)!r} cannot be read or written: {error.orig}"
            ) from error


def _of(predictor: str, **which: Unpack[Which]) -> Select[tuple[object, ...]]:
    query = select(_table).where(_table.c.predictor == predictor)
    version, since = which.get("version"), which.get("since")
    if version is not None:
        query = query.where(_table.c.version == version)
    if which.get("labelled"):
        # Files of an earlier release may hold a label of nothing.
        query = query.where(_table.c.label.is_not(None), _table.c.label != "null")
    if since is not None:
        query = query.where(_table.c.at >= _text(since))
    roles = which.get("roles")
    return query.where(_table.c.role.in_(roles)) if roles else query


def _counted(predictor: str, version: int, roles: Sequence[str]) -> Select[str, int, int]:
    return select(_counts.c.minute, func.sum(_counts.c.answered), func.sum(_counts.c.failed)).where(
        _counts.c.predictor == predictor, _counts.c.version == version, _counts.c.role.in_(roles)
    )


def _taken(connection: Connection, predictions: Sequence[Recorded]) -> frozenset[str]:
    """Return the ids under which another row is kept, or comes along, whoever answered it."""
    taken: set[str] = set()
    for name in {one.predictor for one in predictions}:
        here = [one for one in predictions if one.predictor == name]
        ids = {one.id for one in here}
        query = select(_table.c.id, _table.c.asked).where(_table.c.predictor == name, _table.c.id.in_(ids))
        kept = {str(id_): json.loads(asked) for id_, asked in connection.execute(query)}
        for one in here:
            # As it was written: what a number became on the way is no difference.
            asked = json.loads(json.dumps(dict(one.asked)))
            if kept.setdefault(one.id, asked) != asked:
                taken.add(one.id)
    return frozenset(taken)


def _add(
    connection: Connection, place: tuple[str, int, str, str], *, answered: int = 0, failed: int = 0
) -> None:
    new = insert(_counts).values((*place, answered, failed))
    more = {name: _counts.c[name] + new.excluded[name] for name in ("answered", "failed")}
    connection.execute(new.on_conflict_do_update(index_elements=[*_counts.primary_key], set_=more))


def _add_what_is_missing(connection: Connection) -> None:
    """Give a file of an earlier release the columns that it lacks; what it holds stays."""
    there = {column.name for column in connection.exec_driver_sql("PRAGMA table_info(predictions)")}
    if "seconds" not in there:
        connection.exec_driver_sql("ALTER TABLE predictions ADD COLUMN seconds FLOAT")


def _set_up(connection: object, record: object) -> None:
    del record
    connection.isolation_level = None  # type: ignore[attr-defined]  # transactions are begun here, not guessed
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    # A commit is in the file's log for every other process, and written through at checkpoints.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _recorded(row: Row[tuple[object, ...]]) -> Recorded:
    found = row._mapping
    return Recorded(
        predictor=found["predictor"],
        id=found["id"],
        version=found["version"],
        role=found["role"],
        at=datetime.fromisoformat(found["at"]),
        asked=json.loads(found["asked"]),
        answer=json.loads(found["answer"]),
        label=None if found["label"] is None else json.loads(found["label"]),
        seconds=found["seconds"],
    )


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _minute(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="minutes")
