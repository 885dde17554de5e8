"""The tests of what the store keeps, on PostgreSQL: every file that they name is a database of a server.

Most modules here take over the tests of a module of `tests/unit`, as they are. Left out are those that are
marked ``sqlite``, since they speak of the file itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Server, binaries, running_server
from watchkeeper.runtime import store
from watchkeeper.runtime.database import Database, open_database


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only SQLite has."""
    here = Path(__file__).parent
    left = [item for item in items if here in item.path.parents and item.get_closest_marker("sqlite")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests."""
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed (`make parts` installs it where it may)")
    with running_server() as server:
        yield server


@pytest.fixture(autouse=True)
def databases(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Open a database of the server where a test opens a file: the same one for the same file."""
    made: dict[str, str] = {}
    opened: list[Database] = []

    def instead(place: Path | str) -> Database:
        if isinstance(place, Path) or "://" not in place:
            path = str(Path(place).resolve())
            if path not in made:
                made[path] = server.new_database()
            place = made[path]
        opened.append(open_database(place))
        return opened[-1]

    monkeypatch.setattr(store, "open_database", instead)
    yield
    for database in opened:
        database.engine.dispose()
    for url in made.values():
        server.drop(url)
