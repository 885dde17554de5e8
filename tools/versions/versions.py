"""Versions of predictors in a home: registered once by their files, checked before use, named by aliases."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import EllipsisType

from pydantic import ValidationError

from watchkeeper.tools.durable import digest, private_folder, write_durably
from watchkeeper.tools.errors import MovedError, VersionError
from watchkeeper.tools.predictors import Predictor, open_predictor, read_manifest
from watchkeeper.tools.training.interface import Evaluation
from watchkeeper.tools.versions.cards import write_card
from watchkeeper.tools.versions.files import check_files, digest_of, keep_files
from watchkeeper.tools.versions.mlflow_store import Entry, MlflowStore
from watchkeeper.tools.versions.moves import followed_up, moves_of, settle, tag_of
from watchkeeper.tools.versions.records import (
    CHAMPION,
    JobRecord,
    Move,
    MoveState,
    Notes,
    Version,
    VersionRecord,
    check_alias,
    check_name,
)

FOLDER = "predictors"
"""Folder of the home that holds the versions."""

_RECORD_TAG = "watchkeeper.record"
_DATABASE = "mlflow.db"
_LEAST_PREFIX = 8


class Versions:
    """The versions of all predictors of a home.

    The files of each lie in a folder that its digest names, with a record beside them; MLflow's registry
    says which versions there are, with the digests of both, and what aliases name. Changes hold a lock among
    all processes of this machine.

    Args:
        home: Folder of Watchkeeper's state.
        create: Whether to begin where nothing is registered yet.
        now: The time.

    Raises:
        MissingExtraError: If the extra ``registry`` is not installed.
        VersionError: If the versions cannot be opened, or nothing is registered and nothing is to be begun.
    """

    def __init__(
        self,
        home: Path,
        *,
        create: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = home / FOLDER
        self._now = now
        if not create and not (self.folder / _DATABASE).is_file():
            raise VersionError(
                f"no predictor is registered in {str(home)!r}; see `watchkeeper predictors register`"
            )
        try:
            private_folder(self.folder)
        except OSError as error:
            raise VersionError(
                f"{str(self.folder)!r} cannot hold versions of predictors: {error.strerror}"
            ) from error
        with self._locked():
            self._store = MlflowStore(self.folder / _DATABASE)

    def register(
        self,
        name: str,
        folder: Path,
        evaluation: Evaluation | None = None,
        job: JobRecord | None = None,
        notes: Notes | None = None,
    ) -> Version:
        """Keep a predictor as a version; the same files are the same version, with its first record.

        Args:
            name: The predictor that it is a version of.
            folder: Its files; they are copied.
            evaluation: How good it is on data that it did not learn from.
            job: What made it.
            notes: What people should know.

        Raises:
            ArtefactError: If the folder holds no predictor.
            VersionError: If it cannot be kept.
        """
        check_name(name)
        read_manifest(folder)
        with self._locked():
            kept, files = keep_files(folder, self._files_of(name))
            record = VersionRecord(
                name=name,
                digest=digest_of(files),
                files=files,
                manifest=read_manifest(kept),
                evaluation=evaluation,
                job=job,
                notes=notes or Notes(),
                registered_at=self._now(),
            )
            if self._store.entry_of(name, record.digest) is None:
                content = record.model_dump_json().encode()
                write_durably(self._record_path(name, record.digest), content)
                self._store.add(
                    name,
                    source=kept,
                    digest=record.digest,
                    tags={_RECORD_TAG: digest(content), **_tags(record)},
                    parameters={key: json.dumps(value) for key, value in record.manifest.parameters.items()},
                    metrics={} if evaluation is None else evaluation.metrics,
                )
        version = self.get(name, record.digest)
        try:
            write_card(version)
        except OSError as error:
            raise VersionError(f"the card of {name!r} cannot be written: {error.strerror}") from error
        return version

    def names(self) -> tuple[str, ...]:
        """Return the names of all predictors that have versions."""
        return self._store.names()

    def list(self, name: str) -> tuple[Version, ...]:
        """Return the versions of a predictor, the oldest first.

        Raises:
            VersionError: If there is no such predictor, or a record is damaged.
        """
        aliases = self.aliases(name)
        return tuple(self._version(name, entry, aliases) for entry in self._store.entries(name))

    def look_over(self, name: str) -> tuple[tuple[Version, ...], tuple[str, ...]]:
        """Return the versions of a predictor, the oldest first, and what is wrong with those left out.

        Raises:
            VersionError: If there is no such predictor.
        """
        aliases = self.aliases(name)
        found: list[Version] = []
        wrong: list[str] = []
        for entry in self._store.entries(name):
            try:
                found.append(self._version(name, entry, aliases))
            except VersionError as error:
                wrong.append(f"version {entry.number} of {name!r}: {error}")
        return tuple(found), tuple(wrong)

    def aliases(self, name: str) -> dict[str, int]:
        """Return which version each alias of a predictor names.

        Raises:
            VersionError: If there is no such predictor.
        """
        model = self._store.model(check_name(name))
        if model is None:
            raise VersionError(
                f"there is no predictor {name!r}; there are: {', '.join(self.names()) or 'none'}"
            )
        return dict(model.aliases)

    def get(self, name: str, which: str | int = CHAMPION) -> Version:
        """Return a version.

        Args:
            name: The predictor.
            which: Its number, an alias, or the beginning of its digest (at least 8 characters).

        Raises:
            VersionError: If there is none, or its record is damaged.
        """
        aliases = self.aliases(name)
        entries = self._store.entries(name)
        wanted = str(which)
        if wanted in aliases:
            wanted = str(aliases[wanted])
        for entry in entries:
            number, found = str(entry.number), self._digest(name, entry)
            if wanted == number or (len(wanted) >= _LEAST_PREFIX and found.startswith(wanted)):
                return self._version(name, entry, aliases)
        numbers = ", ".join(str(entry.number) for entry in entries) or "none"
        named = ", ".join(f"{alias} ({number})" for alias, number in sorted(aliases.items())) or "none"
        raise VersionError(
            f"predictor {name!r} has no version {str(which)!r:.80}; versions: {numbers}; aliases: {named}"
        )

    def check(self, version: Version) -> None:
        """Make sure that the files of a version are as they were kept.

        Raises:
            VersionError: Naming the first that is not.
        """
        check_files(version.folder, version.record.files)

    def open(self, name: str, which: str | int = CHAMPION) -> tuple[Version, Predictor]:
        """Load a version, after its files were checked.

        Raises:
            VersionError: If there is none, or its files are not as they were kept.
            ArtefactError: If its kind is not known here.
            MissingExtraError: If its kind needs an extra that is not installed.
        """
        version = self.get(name, which)
        self.check(version)
        return version, open_predictor(version.folder)

    def promote(
        self,
        name: str,
        number: int,
        *,
        alias: str = CHAMPION,
        by: str,
        reason: str = "",
        key: str | None = None,
        expected: int | EllipsisType | None = ...,
    ) -> Move:
        """Let an alias name a version; its files are checked first.

        Args:
            name: The predictor.
            number: The version.
            alias: The alias.
            by: Who does that.
            reason: Why.
            key: Name of this occasion: with the same key nothing is moved twice.
            expected: What the alias must name now (None: nothing); by default whatever it names.

        Returns:
            The move, which says what the alias named before.

        Raises:
            MovedError: If the alias does not name what was expected (nothing was moved).
            VersionError: If there is no such version, or its files are not as they were kept.
        """
        check_alias(alias)
        version = self.get(name, number)
        self.check(version)
        return self._move(name, alias, version.number, by=by, reason=reason, key=key, expected=expected)

    def restore(self, move: Move, *, by: str, reason: str = "") -> Move:
        """Take a move back, exactly: the alias names again what it named before, or nothing.

        Safe to repeat: what was taken back stays so. A later move that was itself taken back counts as none.

        Raises:
            MovedError: If the alias was moved again since.
            VersionError: If the move did not take place, or what the alias named is damaged.
        """
        done = [one for one in self.history(move.name) if one.state is MoveState.DONE]
        known = next((one for one in done if one.key == move.key), None)
        if known is None:
            raise VersionError(f"move {move.number} of {move.alias!r} of {move.name!r} did not take place")
        undo = next((one for one in done if one.undoes == known.number), None)
        if undo is not None and self.aliases(known.name).get(known.alias) != known.after:
            return undo
        if (since := followed_up(known, done)) is not None:
            raise MovedError(
                f"{known.alias!r} of {known.name!r} was moved again since, to {_said(since.after)} by "
                f"{since.by!r}: look at its history and decide again"
            )
        if known.before is not None:
            self.check(self.get(known.name, known.before))
        return self._move(
            known.name,
            known.alias,
            known.before,
            by=by,
            reason=reason,
            key=f"undo:{known.number}",
            expected=known.after,
            undoes=known.number,
        )

    def history(self, name: str) -> tuple[Move, ...]:
        """Return all moves of a predictor's aliases, the oldest first.

        Raises:
            VersionError: If there is no such predictor.
        """
        self.aliases(name)
        with self._locked():
            return self._settled(name)

    def find_move(self, name: str, key: str) -> Move | None:
        """Return the move of an occasion, or None where nothing of it was begun."""
        return next((move for move in self.history(name) if move.key == key), None)

    def last_move(self, name: str, alias: str = CHAMPION) -> Move | None:
        """Return the last move of an alias that took place and was not taken back."""
        done = [m for m in self.history(name) if m.alias == alias and m.state is MoveState.DONE]
        undone = {move.undoes for move in done}
        kept = [move for move in done if move.undoes is None and move.number not in undone]
        return kept[-1] if kept else None

    def _move(
        self,
        name: str,
        alias: str,
        after: int | None,
        *,
        by: str,
        reason: str,
        key: str | None,
        expected: int | EllipsisType | None,
        undoes: int | None = None,
    ) -> Move:
        with self._locked():
            moves = self._settled(name)
            known = next((move for move in moves if key is not None and move.key == key), None)
            if known is not None and known.state is MoveState.DONE:
                return known
            before = self.aliases(name).get(alias)
            if expected is not ... and before != expected:
                raise MovedError(
                    f"{alias!r} of {name!r} names {_said(before)}, not {_said(expected)}: it was moved "
                    "since; look at its history and decide again"
                )
            number = len(moves) + 1 if known is None else known.number
            move = Move(
                number=number,
                name=name,
                alias=alias,
                before=before,
                after=after,
                by=by,
                at=self._now(),
                reason=reason,
                key=key or f"move:{number}",
                undoes=undoes,
            )
            self._tell(move)
            if before != after:
                self._store.set_alias(name, alias, after)
            done = move.model_copy(update={"state": MoveState.DONE})
            self._tell(done)
            return done

    def _settled(self, name: str) -> tuple[Move, ...]:
        """Return the moves; one that a crash cut off is found to have taken place or not."""
        model = self._store.model(name)
        if model is None:
            return ()
        moves = []
        for move in moves_of(model.tags):
            settled = settle(move, model.aliases.get(move.alias))
            if settled != move:
                self._tell(settled)
            moves.append(settled)
        return tuple(moves)

    def _tell(self, move: Move) -> None:
        self._store.set_tag(move.name, *tag_of(move))

    def _version(self, name: str, entry: Entry, aliases: dict[str, int]) -> Version:
        found = self._digest(name, entry)
        path = self._record_path(name, found)
        try:
            content = path.read_bytes()
            record = VersionRecord.model_validate_json(content)
        except (OSError, ValidationError) as error:
            raise VersionError(f"{str(path)!r} cannot be read: {str(error).splitlines()[0]:.200}") from error
        if digest(content) != entry.tags.get(_RECORD_TAG) or digest_of(record.files) != found:
            raise VersionError(f"{str(path)!r} is not as it was kept: bring it back from a backup")
        named = tuple(sorted(alias for alias, number in aliases.items() if number == entry.number))
        return Version(number=entry.number, folder=self._files_of(name) / found, aliases=named, record=record)

    def _digest(self, name: str, entry: Entry) -> str:
        found = entry.tags.get("watchkeeper.digest", "")
        if not found:
            raise VersionError(
                f"version {entry.number} of {name!r} was not registered by Watchkeeper: it has no digest"
            )
        return found

    def _files_of(self, name: str) -> Path:
        return self.folder / name

    def _record_path(self, name: str, found: str) -> Path:
        return self._files_of(name) / f"{found}.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _tags(record: VersionRecord) -> dict[str, str]:
    manifest, job = record.manifest, record.job
    found = {
        "kind": manifest.kind,
        "trainer": manifest.trainer,
        "data_sha256": manifest.data_sha256,
        "libraries": json.dumps(manifest.versions, sort_keys=True),
    }
    if job is not None:
        found["job"] = job.id
        found["hardware"] = json.dumps(job.hardware, sort_keys=True)
        if job.energy_joules is not None:
            found["energy_joules"] = f"{job.energy_joules:g}"
    return {f"watchkeeper.{key}": value[:4000] for key, value in found.items() if value}


def _said(number: int | EllipsisType | None) -> str:
    return "nothing" if number is None else f"version {number}"
