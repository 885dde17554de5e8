"""What facts need to look at this very machine, and the bounds within which they look."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path

from watchkeeper.tools.addresses import parts_of_address
from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec, HttpCheck
from watchkeeper.tools.schema import folders_of


def require_local(target: Target, fact: str) -> None:
    """Refuse a host that is not this machine.

    Raises:
        CollectError: If the host is reached in another way.
    """
    if not target.host.is_local:
        raise CollectError(
            f"{fact} reads files and processes directly and cannot read host {target.host.name!r}, "
            "which is not this machine"
        )


def reason(error: OSError) -> str:
    """Say in words why the system refused, e.g. ``Permission denied``."""
    return error.strerror or type(error).__name__


def endpoint(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address.

    Raises:
        CollectError: If it is not an HTTP address.
    """
    try:
        return parts_of_address(url)
    except ValueError as error:
        raise CollectError(f"{url!r:.200}: {error}") from error


def require_known_endpoint(spec: HostSpec, host: str, port: int) -> None:
    """Refuse to open a connection to what neither the inventory names nor this machine itself serves.

    Arguments of facts come from a model: without this bound an address would be a way to carry data out
    of the site.

    Raises:
        CollectError: If the endpoint is neither on loopback nor in a check of the inventory.
    """
    if is_loopback(host):
        return
    for service in spec.services:
        for check in service.checks:
            known = endpoint(check.url)[1:] if isinstance(check, HttpCheck) else (check.host, check.port)
            if known == (host, port):
                return
    raise CollectError(
        f"{host}:{port} is neither on this machine nor in a check of host {spec.name!r}: "
        "add a check to the inventory to allow it"
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its loopback address or name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_regular(path: Path) -> int:
    """Open a regular file for reading, never through a symbolic link in its last part, never waiting.

    Returns:
        A file descriptor, to be closed by the caller.

    Raises:
        OSError: If it cannot be opened.
        CollectError: If it is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CollectError(f"{str(path)!r} is not a regular file")
    return descriptor


def readable_log(spec: HostSpec, path: Path) -> Path:
    """Resolve the path of a log that the host's inventory allows to be read.

    That is a log of a service, or a file below a data folder or the folder of a log.

    Raises:
        CollectError: If it is elsewhere, or leads elsewhere.
    """
    real = Path(os.path.realpath(path))
    allowed = {Path(os.path.realpath(log)) for service in spec.services for log in service.logs}
    folders = [Path(os.path.realpath(folder)) for folder in folders_of(spec)]
    if real in allowed or any(real.is_relative_to(folder) for folder in folders if folder != Path("/")):
        return real
    raise CollectError(
        f"{str(path)!r} is neither a log of host {spec.name!r} nor below its data and log folders: "
        "add it to the inventory to allow reading it"
    )
