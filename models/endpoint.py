"""The address of a model that another machine serves, as a user writes it."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from watchkeeper.models.errors import UnknownModelError

_DEFAULT_PATH = "/v1"


def is_endpoint(model_id: str | None) -> bool:
    """Whether a model's id is the address of an endpoint and not a name of the catalog."""
    return model_id is not None and model_id.lower().startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint, and the model that is wanted there.

    Attributes:
        url: Base of its addresses, for example ``http://127.0.0.1:8321/v1``.
        model: Name of the model there; ``None`` for the only one that it serves.
    """

    url: str
    model: str | None = None

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read an address like ``http://host:port/v1#model``; without a path, ``/v1`` is meant.

        Raises:
            UnknownModelError: If it is no such address, or holds a password.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise UnknownModelError(f"{text!r} is no address of an endpoint: {error}") from error
        if parts.username is not None or parts.password is not None:
            # The address is shown and recorded; what is secret must not be in it.
            raise UnknownModelError(
                f"the address of the endpoint at {parts.hostname!r} holds a name or password; "
                f"give an API key in WATCHKEEPER_MODEL_API_KEY instead"
            )
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
            raise UnknownModelError(
                f"{text!r} is no address of an endpoint; write it like http://127.0.0.1:8321/v1#model"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        place = host if port is None else f"{host}:{port}"
        path = parts.path.rstrip("/") or _DEFAULT_PATH
        return cls(f"{parts.scheme}://{place}{path}", parts.fragment or None)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    def digest(self, model: str) -> str:
        """SHA-256 of the address and a model's name: all that is known here about what answers."""
        return hashlib.sha256(f"{self.url}#{model}".encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine and no other can reach it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
