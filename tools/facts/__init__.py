"""Facts: what can be read of a host, one module per noun."""

from __future__ import annotations

from typing import Any

from watchkeeper.tools.fact import Fact
from watchkeeper.tools.facts.certificate import CertificateExpiry
from watchkeeper.tools.facts.config import ConfigChanges
from watchkeeper.tools.facts.disk import DiskUsage
from watchkeeper.tools.facts.forecast import DiskForecast
from watchkeeper.tools.facts.host import HostCpu, HostMemory
from watchkeeper.tools.facts.http import HttpCheckFact
from watchkeeper.tools.facts.job import JobList, JobStatus
from watchkeeper.tools.facts.largest import DiskLargest
from watchkeeper.tools.facts.log import LogSearch
from watchkeeper.tools.facts.metric import MetricAnomaly
from watchkeeper.tools.facts.process import ProcessList
from watchkeeper.tools.facts.service import ServiceStatus
from watchkeeper.tools.facts.socket import SocketList
from watchkeeper.tools.facts.tcp import TcpCheckFact

__all__ = [
    "CertificateExpiry",
    "ConfigChanges",
    "DiskForecast",
    "DiskLargest",
    "DiskUsage",
    "HostCpu",
    "HostMemory",
    "HttpCheckFact",
    "JobList",
    "JobStatus",
    "LogSearch",
    "MetricAnomaly",
    "ProcessList",
    "ServiceStatus",
    "SocketList",
    "TcpCheckFact",
    "builtin_facts",
]


def builtin_facts() -> tuple[Fact[Any, Any], ...]:
    """Return all facts that come with Watchkeeper, those that say most first."""
    return (
        HttpCheckFact(),
        TcpCheckFact(),
        ServiceStatus(),
        LogSearch(),
        ConfigChanges(),
        DiskUsage(),
        DiskLargest(),
        HostMemory(),
        HostCpu(),
        ProcessList(),
        SocketList(),
        CertificateExpiry(),
        JobList(),
        JobStatus(),
        MetricAnomaly(),
        DiskForecast(),
    )
