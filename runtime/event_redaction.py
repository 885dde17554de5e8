"""Secrets are taken out of events: of every text that is written freely, and of no name."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from watchkeeper.tools.redaction import is_identity, redact_looks

R = TypeVar("R", bound=BaseModel)


def redacted(part: R) -> R:
    """Return an event, or a part of one, without the secrets that its texts hold.

    Who did it and what it is about stays as it is: a record that hides them proves nothing.
    """
    return part.model_copy(update={name: _of(getattr(part, name)) for name in _texts(type(part))})


def _of(value: Any) -> Any:
    if isinstance(value, Enum):
        return value
    if isinstance(value, BaseModel):
        return redacted(value)
    if isinstance(value, tuple):
        return tuple(map(_of, value))
    return redact_looks(value)


@lru_cache
def _texts(kind: type[BaseModel]) -> tuple[str, ...]:
    """Fields whose texts are written freely: neither one of a few words, nor who or which."""
    fields = kind.model_fields.items()
    return tuple(name for name, field in fields if not is_identity(name) and not _is_closed(field.annotation))


def _is_closed(annotation: object) -> bool:
    if isinstance(annotation, type):
        return issubclass(annotation, Enum | int | float | datetime)
    return get_origin(annotation) is Literal or any(map(_is_closed, get_args(annotation)[:1]))
