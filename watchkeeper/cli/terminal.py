"""The terminal of a run: what a person types, and lines that come from elsewhere meanwhile."""

from __future__ import annotations

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
        self._marked = False
        self._writing = threading.RLock()

    @contextmanager
    def asking(self, approval_id: str) -> Iterator[None]:
        """Put a question here until the block ends: nobody is told beside it that it waits."""
        self._asked = approval_id
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
        self._marked = False

    def call(self, line: str) -> None:
        """Write a line for people who are called; the mark stands below it again where a question waits."""
        with self._writing:
            if self._asked and line.partition(": ")[2].startswith(self._asked):
                return
            before = "\n" if self._marked else ""
            self.console.print(Text(before + visible(line), style="bold yellow"), soft_wrap=True)
            if self._marked:
                self.mark()
