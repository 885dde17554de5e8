"""What an endpoint says when it does not answer, as an error of ours."""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any

from watchkeeper.models.errors import (
    BusyError,
    CapacityError,
    GrammarError,
    ModelError,
    PromptTooLongError,
    RemoteError,
    UnknownModelError,
)

_MOST_CHARACTERS = 500
_TOO_LONG = ("maximum context length", "context length", "context size", "context window")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in the shape of OpenAI's API, or what came in its place.

    Attributes:
        url: Who refused.
        status: HTTP status.
        code: Machine-readable reason, empty where none was given.
        message: What was said, bounded.
        retry_after: Seconds after which it may be asked again.
    """

    url: str
    status: int
    code: str
    message: str
    retry_after: float | None = None

    @classmethod
    def read(
        cls, url: str, status: int, body: bytes, retry_after: float | None, *, secret: str | None = None
    ) -> Refusal:
        """Read the body of a refusal, whatever it holds.

        Args:
            url: Who refused.
            status: HTTP status.
            body: What was sent with it.
            retry_after: Seconds after which it may be asked again.
            secret: A text that is cut out of what was said.
        """
        said: Any = None
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = body.decode("utf-8", "replace").strip()
        code = ""
        if isinstance(said, dict):
            inner = said.get("error", said)
            if isinstance(inner, dict):
                code = str(inner.get("code") or "")
                said = inner.get("message") or inner.get("detail") or inner
            else:
                said = inner
        text = said if isinstance(said, str) else json.dumps(said)
        if secret:
            text = text.replace(secret, "***")
        return cls(url, status, code, text[:_MOST_CHARACTERS], retry_after)

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered later: not where it can never fit."""
        return self.code not in {"capacity_exceeded", "insufficient_quota"}

    def error(self) -> ModelError:
        """Return the error that tells a caller what to do."""
        said = f"{self.url} refuses ({self.status}): {self.message or 'no reason given'}"
        if self.status in {401, 403}:
            return RemoteError(f"{said}; set its API key in WATCHKEEPER_MODEL_API_KEY")
        if self.code == "busy":
            return BusyError(said)
        if self.code == "capacity_exceeded":
            return CapacityError(said)
        if self.code == "model_not_found":
            return UnknownModelError(said)
        if self.code == "unsupported_schema":
            return GrammarError(said)
        if self.status == 413 or self.code == "context_length_exceeded":
            return PromptTooLongError(said)
        if self.status == 400 and any(words in self.message.lower() for words in _TOO_LONG):
            return PromptTooLongError(said)
        if 300 <= self.status < 400:
            return RemoteError(f"{self.url} redirects ({self.status}); give the address it leads to")
        return RefusedError(said, self.status)


class RefusedError(RemoteError):
    """An endpoint refused a request.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def seconds_to_wait(header: str | None) -> float | None:
    """Read a ``Retry-After`` header: seconds, or a date of HTTP (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
