"""Facts: read-only tools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from watchkeeper.tools.findings import Finding
from watchkeeper.tools.host import Target

Raw = dict[str, JsonValue]
"""What a fact read from its host, as JSON: the input of the pure part, and of its golden files."""


class Provenance(StrEnum):
    """Who could have written a text."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"


class Arguments(BaseModel):
    """Arguments of a tool; unknown ones are refused.

    A field that names something of the inventory carries ``vocabulary`` in its JSON schema extra, one of
    ``service``, ``path``, ``config``, ``log``, ``data``, ``url``, ``pid``, ``process``, ``job``,
    ``jobspec``, ``metric``, ``filling``: the schema that an agent sees is narrowed to the values known there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class Result(BaseModel):
    """Result of a fact; ``cut`` says that something was left out to keep it small."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cut: bool = False


A = TypeVar("A", bound=Arguments)
R = TypeVar("R", bound=Result)


class Fact(ABC, Generic[A, R]):
    """A read-only tool: a collector, and a pure function from what it read to a typed result.

    Attributes:
        name: Registered name, ``noun.noun``.
        summary: What it tells, in a few words; the model reads it.
        provenance: ``UNTRUSTED`` where the result quotes text that others can write.
        kinds: Kinds of findings that it can make; None where that is not said.
        plain_findings: Whether the texts of its findings hold nothing that others wrote although its result
            quotes that; then agents with tools may be told them as they are.
        network: Whether its commands need the network; the sandbox that they run in has none otherwise.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    provenance: ClassVar[Provenance] = Provenance.TRUSTED
    kinds: ClassVar[frozenset[str] | None] = None
    plain_findings: ClassVar[bool] = False
    network: ClassVar[bool] = False
    arguments_type: type[A]
    result_type: type[R]

    @abstractmethod
    def collect(self, target: Target, arguments: A) -> Raw:
        """Read from the host.

        Raises:
            CollectError: If it cannot be read.
        """

    @abstractmethod
    def interpret(self, raw: Raw, arguments: A) -> R:
        """Turn what was read into a typed result; pure."""

    def findings(self, result: R, arguments: A) -> Iterable[Finding]:  # noqa: ARG002
        """Say what a plain analyzer sees in the result; pure, and from trusted values only."""
        return ()

    def quotations(self, result: R) -> tuple[str, ...]:  # noqa: ARG002
        """Return the lines of strangers that the result quotes: for the quarantined reader and people."""
        return ()

    def suspicious(self, result: R) -> tuple[str, ...]:  # noqa: ARG002
        """Return those lines of strangers that tell somebody to do something: for people only."""
        return ()

    def offers(self, result: R) -> dict[str, list[str]]:  # noqa: ARG002
        """Return the values that the result offers to actions, by vocabulary, e.g. log files it found."""
        return {}

    def describe(self, arguments: A) -> str:
        """Say what this call would tell, for the choice of the next fact, e.g. ``"how full /data is"``."""
        values = ", ".join(
            f"{k}={v}" for k, v in arguments.model_dump(mode="json", exclude_defaults=True).items()
        )
        return f"{self.summary} ({values})" if values else self.summary

    def parse_arguments(self, values: dict[str, Any]) -> A:
        """Validate arguments."""
        return self.arguments_type.model_validate(values)
