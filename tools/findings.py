"""Findings: what a plain analyzer says about the result of a fact."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Severity(StrEnum):
    """How far from normal a finding is."""

    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"


class FindingKind(StrEnum):
    """What a finding is about; a cause lists the kinds that support it."""

    CHECK_FAILING = "check-failing"
    CHECK_PASSING = "check-passing"
    SERVICE_NOT_RUNNING = "service-not-running"
    SERVICE_RESTARTED = "service-restarted"
    SERVICE_RUNNING = "service-running"
    FILESYSTEM_FULL = "filesystem-full"
    FILESYSTEM_FILLING = "filesystem-filling"
    LARGE_FILE = "large-file"
    CONFIG_CHANGED = "config-changed"
    CONFIG_INVALID = "config-invalid"
    MEMORY_LOW = "memory-low"
    CPU_BUSY = "cpu-busy"
    PROCESS_HEAVY = "process-heavy"
    METRIC_ANOMALY = "metric-anomaly"
    CERTIFICATE_EXPIRING = "certificate-expiring"
    LOG_NO_SPACE = "log-no-space"
    LOG_CONFIG_ERROR = "log-config-error"
    LOG_CONNECTION = "log-connection"
    LOG_MEMORY = "log-memory"
    LOG_PERMISSION = "log-permission"
    LOG_PORT_TAKEN = "log-port-taken"
    LOG_CERTIFICATE = "log-certificate"
    LOG_ERRORS = "log-errors"
    LOG_CLASSIFIED = "log-classified"
    JOB_FAILED = "job-failed"
    JOB_CRASHED = "job-crashed"
    JOB_WAITING = "job-waiting"
    JOB_RUNNING = "job-running"
    JOB_ENDED = "job-ended"
    PREDICTOR_UNANSWERED = "predictor-unanswered"
    PREDICTOR_DRIFT = "predictor-drift"
    PREDICTOR_WORSE = "predictor-worse"
    PREDICTOR_SLOWER = "predictor-slower"
    PREDICTOR_FAILING = "predictor-failing"
    PREDICTOR_AS_BEFORE = "predictor-as-before"
    SUSPICIOUS_TEXT = "suspicious-text"
    CUSTOM = "custom"


class Finding(BaseModel):
    """One statement of a plain analyzer, made from trusted values only.

    Attributes:
        kind: What it is about; a tool of a user's own may use any text of its own.
        subject: What it is said of: a service, a path, a process id, an address.
        text: One short sentence for people; no more of what others wrote than names, made plain.
        severity: How far from normal.
        told: What agents with tools are told in its place, where ``text`` holds names that others chose:
            ``{0}``, ``{1}`` stand for ``names``. Empty: the text itself where the fact is trusted, and no
            more than the kind where it is not.
        names: Those names as they are; agents know them by stand-ins like ``file-1``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    subject: str
    text: str
    severity: Severity = Severity.NORMAL
    told: str = ""
    names: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        kept: dict[str, Any] = handler(self)
        return {name: value for name, value in kept.items() if value or name not in {"told", "names"}}
