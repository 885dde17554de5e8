"""Who is let in, and with how much: the same for every server of this distribution."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from watchkeeper.models.endpoint import is_loopback
from watchkeeper.models.server.errors import HttpError
from watchkeeper.models.server.keys import ApiKeys


@dataclass(frozen=True, slots=True)
class Admission:
    """What a request must bring.

    Attributes:
        keys: Who may ask; None where no key is needed.
        local_only: Whether requests must name this machine as their host, so that no page of another site
            reaches a server without keys through a name that it gave to this address.
        most_bytes: Bytes of a body.
    """

    keys: ApiKeys | None
    local_only: bool
    most_bytes: int

    def check(self, request: Request) -> None:
        """Let a request in.

        Raises:
            HttpError: 401 without a valid key, 403 for a host that is not this machine.
        """
        if self.keys is not None:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or self.keys.holder(key.strip()) is None:
                raise HttpError(
                    401,
                    "no valid API key; send it in the header 'Authorization: Bearer KEY'",
                    type="authentication_error",
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )
        if self.local_only:
            host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
            if not is_loopback(host):
                raise HttpError(
                    403, f"this server has no API keys and answers this machine only, not {host!r:.80}"
                )

    async def body(self, request: Request, *, too_large: str | None = None) -> bytes:
        """Read a body of JSON.

        Args:
            request: The request.
            too_large: Machine-readable reason where it is larger than allowed.

        Raises:
            HttpError: 415 for another kind of body, 413 for one that is too large.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # A page in a browser may send other kinds anywhere without asking first.
            raise HttpError(415, f"the body must be application/json, not {kind!r:.80}")
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > self.most_bytes:
                raise HttpError(413, f"the body is larger than {self.most_bytes:,} bytes", code=too_large)
        return bytes(data)
