"""Whether an alias is what answers: asked of the servers that run, or of the registry where none does."""

from __future__ import annotations

import time

from watchkeeper.tools.action import Verification
from watchkeeper.tools.errors import VersionError
from watchkeeper.tools.versions.server_file import RunningServer, running_servers
from watchkeeper.tools.versions.versions import Versions

_FOLLOWS_SECONDS = 5.0
"""A server that loads nothing follows an alias within a second."""

_PAUSE = 0.1


def answers_with(versions: Versions, name: str, alias: str, number: int | None) -> Verification:
    """Say whether an alias names a version, and every server here that serves the predictor answers with it.

    A server is waited for while it loads, for as long as it says; one that ends meanwhile is none.

    Args:
        versions: The registry.
        name: The predictor.
        alias: The alias.
        number: The version; None for none.

    Raises:
        VersionError: If the registry cannot be read.
    """
    found = versions.aliases(name).get(alias)
    if found != number:
        return Verification(ok=False, detail=f"the {alias} of {name} is {version_said(found)}")
    began = time.monotonic()
    asked = [server for server in running_servers(versions.folder) if server.serves(name)]
    wrong = [_wrong(server, name, alias, number, began) for server in asked]
    if any(wrong):
        return Verification(ok=False, detail="; ".join(filter(None, wrong)))
    answering = [server.address for server in asked if server.alive]
    if not answering:
        detail = f"{version_said(number)} of {name} is its {alias}; no server of it runs here"
        return Verification(ok=True, detail=detail)
    verb = "answers" if len(answering) == 1 else "answer"
    said = f"{' and '.join(answering)} {verb} with {version_said(number)} of {name}"
    return Verification(ok=True, detail=said)


def version_said(number: int | None) -> str:
    """Write a version in words."""
    return "no version" if number is None else f"version {number}"


def _wrong(server: RunningServer, name: str, alias: str, number: int | None, began: float) -> str:
    """Wait until a server answers with a version, or ends; return why it does not, else nothing."""
    idle = time.monotonic()
    while True:
        try:
            said = server.ask(name, alias)
        except VersionError as error:
            if not server.alive:
                return ""
            wrong, busy = str(error), False
        else:
            if said.version == number and not said.loading:
                return ""
            wrong, busy = f"{server.address} answers with {version_said(said.version)} of {name}", said.busy
            if number is not None and said.failed == number:
                wrong = f"{server.address} cannot load {version_said(number)} of {name}"
        now = time.monotonic()
        if busy:
            idle = now
        if now - began > server.load_seconds and busy:
            return f"{wrong}, and still loads after {now - began:.0f} s"
        if now - idle > _FOLLOWS_SECONDS:
            return wrong
        time.sleep(_PAUSE)
