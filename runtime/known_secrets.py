"""The secrets that a home knows of: they are taken out by their value, whatever they look like."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from watchkeeper.tools.redaction import know_secrets

SECRETS = "secrets"
"""Folder of the home whose files hold one secret each."""

_VARIABLES = ("WATCHKEEPER_TOKEN", "WATCHKEEPER_MODEL_API_KEY", "HF_TOKEN", "PGPASSWORD")
"""Variables of the environment that hold a secret, where they are set."""

_LARGEST = 1 << 16


def learn_secrets(home: Path, store: Path | str | None = None, named: Iterable[str] = ()) -> None:
    """Let the secrets of a home be taken out of whatever is kept or sent by this process.

    Args:
        home: Folder of Watchkeeper's state; every line of the files in its folder ``secrets`` is one.
        store: The store; the password of its URL is one.
        named: Variables of the environment that the configuration names as secrets.
    """
    values = [os.environ.get(name, "") for name in (*_VARIABLES, *named)]
    values += _of_files(home / SECRETS)
    known = {value.strip() for value in values}
    known.update(*(_passwords(value) for value in (*known, str(store))))
    know_secrets(str(home), known)


def _of_files(folder: Path) -> Iterator[str]:
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            # What cannot be read is no secret that this process could tell.
            with suppress(OSError, UnicodeDecodeError):
                if path.is_file() and path.stat().st_size <= _LARGEST:
                    yield from path.read_text(encoding="utf-8").splitlines()


def _passwords(address: str) -> Iterator[str]:
    """The password of an address, as it is and as it is written there; none that is a name beside it."""
    with suppress(ArgumentError, ValueError):
        url = make_url(address)
        if url.password and url.password not in {url.username, url.database, url.host}:
            yield str(url.password)
            yield quote(str(url.password), safe="")
