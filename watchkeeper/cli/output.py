"""What every command says the same way: data on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from watchkeeper.models.interface import Progress

MISTAKE = 2
"""Exit code of a user's mistake."""

HALTED = 5
"""Exit code where somebody stopped everything; see `watchkeeper stop`."""

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

_BYTES_STAGES = frozenset({"download", "verify", "join"})
_PLAIN_STEP = 10


_LOG_WIDTH = 200
"""Columns where there is no terminal."""


def stderr_console() -> Console:
    """A console for people, on standard error; lines of a log are not broken at a terminal's width."""
    from rich.console import Console

    return Console(stderr=True, width=None if sys.stderr.isatty() else _LOG_WIDTH)


def stdout_console() -> Console:
    """A console for tables, on standard output."""
    from rich.console import Console

    return Console()


def fail(message: str, code: int = MISTAKE) -> NoReturn:
    """Say what is wrong in one line on standard error, and end."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str))


def human_bytes(count: int) -> str:
    """Write a number of bytes for people, in decimal units."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


@contextlib.contextmanager
def progress_view(console: Console) -> Iterator[Progress]:
    """Show progress: bars on a terminal, a line for each stage and every ten percent elsewhere."""
    if not console.is_terminal:
        yield _PlainProgress(console).report
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            label, _, detail = stage.partition(": ")
            if label not in tasks:
                # One line at a time: what is over says nothing.
                for other in tasks.values():
                    bars.remove_task(other)
                tasks.clear()
                tasks[label] = bars.add_task(label, total=total, amount="")
            amount = f"{human_bytes(done)} of {human_bytes(total)}" if label in _BYTES_STAGES else detail
            bars.update(tasks[label], completed=done, total=total, amount=amount)

        yield report


class _PlainProgress:
    """Progress for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._next = 0

    def report(self, stage: str, done: int, total: int) -> None:
        """Print a line where there is news."""
        if stage != self._stage:
            self._stage, self._next = stage, 0
        share = 100 * done // total if total else 100
        if share < self._next:
            return
        self._next = share - share % _PLAIN_STEP + _PLAIN_STEP
        if stage in _BYTES_STAGES:
            line = f"{stage}: {share} % of {human_bytes(total)}"
        else:
            line = f"{stage}: {share} %" if total > 1 else stage
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
