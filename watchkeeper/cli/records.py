"""What the commands over kept records share: opening them, showing them, and telling a user's mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchkeeper.cli import output

if TYPE_CHECKING:
    from pydantic import BaseModel

    from watchkeeper.runtime.settings import Settings
    from watchkeeper.runtime.store import Store

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@contextmanager
def mistakes() -> Iterator[None]:
    """Tell a user's mistake in one line on standard error and end with code 2 (5: everything is stopped)."""
    from watchkeeper.runtime.errors import HaltedError, OperationError
    from watchkeeper.tools.errors import ToolError

    try:
        yield
    except HaltedError as error:
        output.fail(str(error), output.HALTED)
    except (OperationError, ToolError) as error:
        output.fail(str(error))


@contextmanager
def opened() -> Iterator[tuple[Settings, Store]]:
    """Open the settings and the store of this user."""
    with mistakes():
        from watchkeeper.runtime.known_secrets import learn_secrets
        from watchkeeper.runtime.settings import load_settings
        from watchkeeper.runtime.store import Store

        settings = load_settings()
        learn_secrets(settings.home, settings.store_place)
        with Store(settings.store_place) as store:
            yield settings, store


def upper(name: str | None) -> str | None:
    """Ids are typed in any case."""
    return None if name is None else name.upper()


def plain(text: str) -> str:
    """Return a text without characters that steer a terminal or hide what is written."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def when(at: datetime | None) -> str:
    """A moment, in UTC and to the second."""
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def day(at: datetime) -> str:
    """A moment, in UTC and to the minute: for columns."""
    return f"{at:%Y-%m-%d %H:%M}"


def count_of(number: int, one: str, many: str = "") -> str:
    """Write a number with its noun; more than one are ``one`` with an s, unless ``many`` is given."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """Print records as JSON."""
    output.print_json(value if isinstance(value, dict) else _dumped(value))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print a table, or say that there is nothing.

    On a terminal the last column, a text for people, is broken where there is no room for it, and the others
    never are; elsewhere a record is one line, however long.
    """
    if not rows:
        typer.echo(empty)
        return
    shown = [tuple(plain(cell).replace("\n", " ") for cell in row) for row in rows]
    console = output.stdout_console()
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(columns, *shown, strict=True)]
        for row in (tuple(columns), *shown):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            typer.echo("  ".join(cells).rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    for row in shown:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values; empty values are left out."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        if value:
            indented = plain(value).replace("\n", "\n" + " " * (width + 2))
            typer.echo(f"{name.ljust(width)}  {indented}")


def _dumped(value: BaseModel | Sequence[BaseModel]) -> Any:
    if isinstance(value, Sequence):
        return [item.model_dump(mode="json") for item in value]
    return value.model_dump(mode="json")
