"""The terminal of a run: what a person types, and lines that come from elsewhere meanwhile."""

from __future__ import annotations

import contextlib
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from watchkeeper.runtime.wording import visible

MARK = "> "
"""Stands where a person may type."""


class Terminal:
    """Keeps the place where a person types apart from what others are told.

    Args:
        console: Where it is written.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._asked = ""
        self._told = False
        self._marked = False
        self._writing = threading.RLock()

    @contextmanager
    def asking(self, approval_id: str) -> Iterator[None]:
        """Put a question here until the block ends: the first notice that it waits is the question itself."""
        self._asked, self._told = approval_id, False
        try:
            yield
        finally:
            with self._writing:
                self._asked = ""
                if self._marked:  # it was answered elsewhere, or by nobody
                    self.typed()
                    self.console.print()

    def mark(self) -> None:
        """Show where to type."""
        with self._writing:
            self.console.print(MARK, end="", style="bold")
            self._marked = True

    def typed(self) -> None:
        """Note that a line was typed behind the mark."""
        with self._writing:
            self._marked = False

    def call(self, line: str) -> None:
        """Write a line for people who are called; the mark stands below it again where a question waits."""
        with self._writing:
            about = line.partition(": ")[2]
            if self._asked and not self._told and about.startswith(self._asked):
                self._told = True
                return
            before = "\n" if self._marked else ""
            self.console.print(Text(before + visible(line), style="bold yellow"), soft_wrap=True)
            if self._marked:
                forget_what_was_typed()  # it stands above, and would be taken for what follows the mark
                self.mark()


def forget_what_was_typed() -> None:
    """Drop input that no line end was typed for, or that answers something else."""
    with contextlib.suppress(termios.error, OSError, ValueError):  # there is no terminal
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
