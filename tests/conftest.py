"""What all tests share."""

from __future__ import annotations

import pytest

from watchkeeper.tools import redaction


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of LangChain's conformance kit; the plug-ins that they belong to are switched off."""
    config.addinivalue_line("markers", "benchmark: measures a time (LangChain's conformance kit)")
    config.addinivalue_line("markers", "vcr: records network traffic (LangChain's conformance kit)")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test take out the secrets of the homes of another one."""
    monkeypatch.setattr(redaction, "_known", {})
    monkeypatch.setattr(redaction, "_known_pattern", None)
