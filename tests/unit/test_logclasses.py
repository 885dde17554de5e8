"""Classes of log lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchkeeper.tools.logclasses import LogClass, classify

LOGHUB = Path(__file__).parents[3] / "shared" / "data" / "loghub"

LINES = [
    ("OSError: [Errno 28] No space left on device: '/data/x'", LogClass.NO_SPACE),
    ("could not extend file: disk full", LogClass.NO_SPACE),
    ("write failed, file system is full", LogClass.NO_SPACE),
    ("MySQL: Disk is full writing './x'", LogClass.NO_SPACE),
    ("flood stage disk watermark [95%] exceeded", LogClass.NO_SPACE),
    ("OSError: [Errno 98] Address already in use", LogClass.PORT_TAKEN),
    ("bind() to 0.0.0.0:80 failed (98: Unknown error)", LogClass.PORT_TAKEN),
    ("Error: listen EADDRINUSE: address already in use :::3000", LogClass.PORT_TAKEN),
    ("SSL: CERTIFICATE_VERIFY_FAILED", LogClass.CERTIFICATE),
    ("x509: certificate has expired or is not yet valid", LogClass.CERTIFICATE),
    ("Out of memory: Killed process 12 (java)", LogClass.MEMORY),
    ("fork: Cannot allocate memory", LogClass.MEMORY),
    ("java.lang.OutOfMemoryError: Java heap space", LogClass.MEMORY),
    ("open() '/srv/x' failed (13: Permission denied)", LogClass.PERMISSION),
    ("cannot read config /etc/x: Permission denied", LogClass.PERMISSION),
    ("invalid configuration: unknown key 'prot'", LogClass.CONFIG),
    ("yaml.scanner.ScannerError: mapping values are not allowed here", LogClass.CONFIG),
    ("server.port: must be between 1 and 65535", LogClass.CONFIG),
    ('nginx: [emerg] unknown directive "sever"', LogClass.CONFIG),
    ("json.decoder.JSONDecodeError: Expecting value", LogClass.CONFIG),
    ("dial tcp 10.0.0.5:5432: connect: connection refused", LogClass.CONNECTION),
    ("upstream timed out (110: Connection timed out)", LogClass.CONNECTION),
    ("getaddrinfo: Name or service not known", LogClass.CONNECTION),
    ("LDAP: could not bind as cn=app", None),
    ("division by zero", None),
    ("configuration loaded from /etc/x", None),
    ("connection from 10.0.0.1 accepted", None),
    ("memory usage 40 %", None),
    ("", None),
]


@pytest.mark.parametrize(("line", "expected"), LINES, ids=[line[:40] or "empty" for line, _ in LINES])
def test_a_line_is_of_the_class_that_its_words_say(line: str, expected: LogClass | None) -> None:
    assert classify(line) is expected


@pytest.mark.skipif(not LOGHUB.is_dir(), reason="the public Loghub samples are not beside the project")
def test_ordinary_lines_of_real_systems_have_no_alarming_class() -> None:
    alarming = {
        LogClass.NO_SPACE,
        LogClass.PORT_TAKEN,
        LogClass.MEMORY,
        LogClass.CONFIG,
        LogClass.CERTIFICATE,
    }
    lines = [
        line
        for file in sorted(LOGHUB.glob("*_2k.log"))
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    assert [line for line in lines if classify(line) in alarming] == []
