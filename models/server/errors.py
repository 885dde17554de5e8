"""What the server refuses, in the shape of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watchkeeper.models.errors import (
    AdapterError,
    BusyError,
    CancelledError,
    CapacityError,
    GrammarError,
    ModelError,
    PromptTooLongError,
    RemoteError,
    UnknownModelError,
)

INVALID = "invalid_request_error"


class ServerError(ModelError):
    """The server cannot run that way (whoever starts it must change how)."""


class ClientGoneError(Exception):
    """The client went away before its answer was there."""


class HttpError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        message: What is wrong and what to do.
        type: Kind of error in OpenAI's words.
        code: Machine-readable reason.
        param: Place in the request.
        headers: HTTP headers to send with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,  # noqa: A002 (OpenAI's word)
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the JSON to send."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def busy(said: str) -> HttpError:
    """Too many wait already: a client may ask again in a second."""
    return HttpError(429, said, type="rate_limit_error", code="busy", headers={"retry-after": "1"})


def closing() -> HttpError:
    """The answer of a server that is being stopped."""
    return HttpError(
        503,
        "the server is being stopped",
        type="server_error",
        code="closing",
        headers={"retry-after": "5"},
    )


def as_http(error: Exception) -> HttpError:
    """Return the answer that an engine's error makes.

    A defect, which is no refusal, is named by its type alone: its text may hold what no client should see.
    """
    said = str(error)
    match error:
        case HttpError():
            return error
        case PromptTooLongError():
            return HttpError(400, said, code="context_length_exceeded", param="messages")
        case GrammarError():
            return HttpError(400, said, code="unsupported_schema")
        case BusyError():
            return busy(said)
        case CapacityError():
            # It will not fit the next time either: a client must not try again by itself.
            return HttpError(
                429,
                said,
                type="capacity_error",
                code="capacity_exceeded",
                param="messages",
                headers={"x-should-retry": "false"},
            )
        case UnknownModelError() | AdapterError():
            return HttpError(404, said, code="model_not_found", param="model")
        case CancelledError():
            return closing()
        case RemoteError():
            return HttpError(502, said, type="server_error", code="upstream")
        case ModelError():
            return HttpError(500, said, type="server_error", code="engine")
        case ValueError():
            return HttpError(400, said)
        case _:
            return HttpError(
                500, f"the server failed ({type(error).__name__})", type="server_error", code="internal"
            )
