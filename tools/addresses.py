"""HTTP addresses: their parts, and what is wrong with one that nothing can ever answer."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WRITE = "write http://host:port/path with a port from 1 to 65535"


def parts_of_address(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address.

    Raises:
        ValueError: If it is not an HTTP address; the message says what to write.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        said = str(error)
        raise ValueError(f"not an HTTP address: {said[:1].lower()}{said[1:]}; {_WRITE}") from error
    if port == 0 or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError(f"not an HTTP address; {_WRITE}")
    return parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme]


def checked_address(url: str) -> str:
    """Return an address as it is.

    Raises:
        ValueError: If it is not an HTTP address.
    """
    parts_of_address(url)
    return url


HttpAddress = Annotated[str, AfterValidator(checked_address)]
"""An address that something could answer at."""
