"""The secrets that a home knows of: they are taken out by their value, whatever they look like."""

from __future__ import annotations

import getpass
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
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
_KEY = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[\w:-]{8,}")


def learn_secrets(home: Path, store: Path | str | None = None) -> None:
    """Let the secrets of a home be taken out of whatever is kept or sent by this process.

    Those that are somebody's or something's name (of an account, a database, a machine) are left out: they
    stand everywhere, and a record must say who did it.

    Args:
        home: Folder of Watchkeeper's state; every line of the files in its folder ``secrets`` is one.
        store: The store; the password of its URL is one.
    """
    values = [os.environ.get(name, "") for name in _VARIABLES]
    _learn(home, "home", [*values, *_of_files(home / SECRETS)])
    if store is not None:
        _learn(home, "store", _passwords(str(store)), names=_names(str(store)))


def learn_named(home: Path, variables: Iterable[str], names: Iterable[str] = ()) -> None:
    """Let what the configuration names as secrets be taken out, too.

    Args:
        home: Folder of Watchkeeper's state.
        variables: Variables of the environment that hold secrets.
        names: Names of hosts, services and people, which are none.
    """
    _learn(home, "named", [os.environ.get(name, "") for name in variables], names=names)


def learn_secret(home: Path, name: str, value: str) -> None:
    """Let a secret that was just read be taken out, too."""
    _learn(home, f"secret {name}", [value])


@dataclass(slots=True)
class _Home:
    """What is known of a home."""

    values: dict[str, frozenset[str]] = field(default_factory=dict)
    names: dict[str, frozenset[str]] = field(default_factory=dict)


_homes: defaultdict[str, _Home] = defaultdict(_Home)
_learning = threading.Lock()


def _learn(home: Path, source: str, values: Iterable[str], *, names: Iterable[str] = ()) -> None:
    found = frozenset(value.strip() for value in values)
    with _learning:
        known = _homes[str(home)]
        known.values[source] = found.union(*map(_passwords, found))
        known.names[source] = frozenset(name.lower() for name in names).union(*map(_names, found))
        spared = frozenset({_account()}).union(*known.names.values())
        secrets = frozenset().union(*known.values.values())
        know_secrets(str(home), (value for value in secrets if value.lower() not in spared))


def _account() -> str:
    """The account that this process runs under; empty where the system does not name it."""
    try:
        return getpass.getuser().lower()
    except (KeyError, OSError):
        return ""


def _of_files(folder: Path) -> Iterator[str]:
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            # What cannot be read is no secret that this process could tell.
            with suppress(OSError, UnicodeDecodeError):
                if path.is_file() and path.stat().st_size <= _LARGEST:
                    yield from path.read_text(encoding="utf-8").splitlines()


def _names(address: str) -> set[str]:
    """Names that an address with a password gives: its user, database and host."""
    with suppress(ArgumentError, ValueError):
        url = make_url(address)
        if url.password:
            return {name.lower() for name in (url.username, url.database, url.host) if name}
    return set()


def _passwords(address: str) -> Iterator[str]:
    """The password of an address as it is and as it is written there, and the keys in one of a service."""
    with suppress(ArgumentError, ValueError):
        url = make_url(address)
        asked = url.query.get("password", "")
        for password in (str(url.password or ""), asked if isinstance(asked, str) else ""):
            if password:
                yield password
                yield quote(password, safe="")
    scheme, separator, rest = address.partition("://")
    if separator and scheme.isalnum() and not scheme.startswith(("http", "sqlite", "postgres", "mailto")):
        # slack://A/B/C and tgram://TOKEN/CHAT: whoever has a part may guess the whole.
        yield from (part for part in rest.partition("?")[0].split("/") if _KEY.fullmatch(part))
