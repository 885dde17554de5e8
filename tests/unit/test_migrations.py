"""A database of an older release is brought up to date in place, wholly or not at all."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from watchkeeper.runtime import migrations
from watchkeeper.runtime.approvals import Approvals
from watchkeeper.runtime.database import open_database
from watchkeeper.runtime.errors import StoreError
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.schema import metadata
from watchkeeper.runtime.store import Store

OLD = Path(__file__).parents[1] / "golden" / "databases"
NEWEST = migrations.revisions()[-1]


def make_old(path: Path, version: int) -> None:
    """Make a database as the release with that schema made it, with one incident in it."""
    alert = (
        '{"title":"api is down","host":"web-1","condition":{"kind":"http","url":"http://127.0.0.1:8080/"}}'
    )
    at = "2026-01-02T03:04:05.000006Z"
    with sqlite3.connect(path) as old:
        old.executescript((OLD / f"schema-{version}.sql").read_text(encoding="utf-8"))
        old.execute("INSERT INTO watchkeeper_meta VALUES ('schema', ?)", (str(version),))
        old.execute(
            "INSERT INTO incidents VALUES ('INC-7K3Q', 'f', 'open', 'critical', ?, 1, ?, ?, NULL, '')",
            (alert, at, at),
        )
    old.close()


def content(path: Path) -> dict[str, object]:
    """Everything that a database says of its tables and holds in them, without the order of columns."""
    found: dict[str, object] = {}
    opened = sqlite3.connect(path)
    for name, kind in opened.execute("SELECT name, type FROM sqlite_master").fetchall():
        if kind == "index":
            found[name] = opened.execute(f"PRAGMA index_xinfo({name!r})").fetchall()
        else:
            found[name] = sorted(row[1:] for row in opened.execute(f"PRAGMA table_info({name})"))
            found[f"{name}:rows"] = opened.execute(f"SELECT count(*) FROM {name}").fetchone()
    opened.close()
    return found


def names_of_columns(path: Path) -> dict[str, set[str]]:
    opened = sqlite3.connect(path)
    tables = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: {row[1] for row in opened.execute(f"PRAGMA table_info({name})")} for name in tables}
    opened.close()
    return found


def revision_of(path: Path) -> str:
    opened = sqlite3.connect(path)
    (found,) = opened.execute("SELECT version_num FROM alembic_version").fetchone()
    opened.close()
    return str(found)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_database_of_an_older_release_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "w.db"
    make_old(path, version)
    Store(tmp_path / "new.db").close()
    for _ in range(2):
        with Store(path) as store:
            assert Incidents(store).get("INC-7K3Q").alert.title == "api is down"
            assert Approvals(store).list() == ()
            store.check()
    assert names_of_columns(path) == names_of_columns(tmp_path / "new.db")
    assert revision_of(path) == NEWEST


@pytest.mark.parametrize("version", [1, 2])
def test_a_migration_that_fails_half_way_leaves_everything_as_it_was(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.db"
    make_old(path, version)
    before = content(path)
    add_column = Operations.add_column

    def fail_at_the_last(self: Operations, table: str, column: object, **options: object) -> None:
        add_column(self, table, column, **options)  # type: ignore[arg-type]
        if getattr(column, "name", None) == "first_by":
            raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "add_column", fail_at_the_last)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            Store(path)
    assert content(path) == before
    with Store(path) as store:
        assert len(Incidents(store).list()) == 1


def test_processes_that_start_at_once_migrate_it_once(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    make_old(path, 1)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from watchkeeper.runtime.store import Store\nfrom watchkeeper.runtime.incidents import Incidents\n"
        "with Store(Path(sys.argv[1])) as store:\n    print(len(Incidents(store).list()))\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in running:
        said, complaint = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "1\n"), complaint
    assert revision_of(path) == NEWEST


@pytest.mark.parametrize("newer", [f"{int(NEWEST) + 1:04}", "0000"])
def test_a_database_of_another_release_is_refused_and_left_alone(tmp_path: Path, newer: str) -> None:
    path = tmp_path / "w.db"
    Store(path).close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE watchkeeper_meta SET value = ? WHERE name = 'schema'", (newer,))
    other.close()
    before = content(path)
    with pytest.raises(
        StoreError, match=rf"schema {int(newer)}, this Watchkeeper knows {int(NEWEST)}: it was"
    ):
        Store(path)
    assert content(path) == before


def test_a_database_whose_revision_is_no_number_is_told_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    Store(path).close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE watchkeeper_meta SET value = 'x' WHERE name = 'schema'")
    other.close()
    with pytest.raises(StoreError, match="its schema version is 'x'"):
        Store(path)


@pytest.mark.parametrize("version", ["new", 1, 3])
def test_releases_from_before_refuse_what_this_one_wrote(tmp_path: Path, version: int | str) -> None:
    path = tmp_path / "w.db"
    if isinstance(version, int):
        make_old(path, version)
    Store(path).close()
    opened = sqlite3.connect(path)
    (found,) = opened.execute("SELECT value FROM watchkeeper_meta WHERE name = 'schema'").fetchone()
    opened.close()
    assert int(found) == migrations.newest_schema() > 3


def test_the_revisions_are_one_line_in_the_order_of_their_files() -> None:
    scripts = ScriptDirectory(str(migrations.FOLDER))
    walked = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(walked)) == migrations.revisions()
    assert scripts.get_heads() == [NEWEST]


def test_migrations_make_what_a_new_database_has(tmp_path: Path) -> None:
    assert differences(tmp_path / "w.db") == []


def differences(place: Path | str) -> list[object]:
    """Say in what the tables that all migrations make differ from those of a new database."""
    database = open_database(place)
    try:
        with database.migrating() as connection:
            migrations.migrate(connection, None)
            compare = _default_differs if connection.dialect.name == "sqlite" else True
            context = MigrationContext.configure(connection, opts={"compare_server_default": compare})
            return list(compare_metadata(context, metadata))
    finally:
        database.engine.dispose()


def _default_differs(
    context: object, found: object, column: object, there: str | None, wanted: object, written: str | None
) -> bool:
    """Compare defaults as texts: Alembic takes an empty one on SQLite for a change."""
    return (there or "").strip("()'") != (written or "").strip("()'")
