"""Putting a drawn site on disk: folders, programs, configuration, legitimate data, and a past in its logs."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import TypeVar

from watchkeeper.demo import vocabulary as words
from watchkeeper.demo.site import HEARTBEAT_LIMIT, Site, draw, record_line

PROFILE_VARIABLE = "SERVICE_PROFILE"
_HOUR = 3600.0
_PLAIN_FOLDER_BYTES = 3 << 20
_ROOM_FOR_SMALL_FILES = 1 << 20

_T = TypeVar("_T")


def build(site: Site, witness: Path, *, bounded: bool) -> None:
    """Write everything of a site; its folders are created, its data folder may be a mount point already.

    Args:
        site: What to write.
        witness: Folder for what only observers read.
        bounded: Whether the data folder is a file system of the size that the site's noise tells.
    """
    for file in (
        site.web_config.path,
        site.web_log,
        site.web_program,
        site.worker_program,
        site.socket,
        site.records,
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
    _write_programs(site, witness)
    _write_history(site, witness)
    _write_bulk(site, bounded=bounded)
    _write_backups(site)


def _write_programs(site: Site, witness: Path) -> None:
    long_ago = time.time() - draw(site.seed, "age").uniform(9, 200) * 24 * _HOUR
    here = Path(__file__)
    shutil.copyfile(here.with_name("webapp.py"), site.web_program)
    shutil.copyfile(here.with_name("worker.py"), site.worker_program)
    pick = draw(site.seed, "reference")
    rows = [
        {"code": f"A-{number}", "value": pick.randint(1, 5000)}
        for number in range(100, 100 + pick.randint(20, 90))
    ]
    site.reference.write_text(json.dumps(rows), encoding="utf-8")
    for config in (site.web_config, site.worker_config):
        config.path.write_text(config.text(), encoding="utf-8")
    site.supervisor_config.write_text(supervisor_text(site, witness), encoding="utf-8")
    for path in (
        site.web_program,
        site.worker_program,
        site.reference,
        site.web_config.path,
        site.worker_config.path,
    ):
        os.utime(path, (long_ago, long_ago))
    for name, profile in profiles(site, witness).items():
        (witness / f"{name}.json").write_text(json.dumps(profile), encoding="utf-8")


def supervisor_text(site: Site, witness: Path) -> str:
    """Render the supervisor's configuration."""
    sections = [
        f"[unix_http_server]\nfile={site.socket}\nchmod=0700",
        (
            f"[supervisord]\nlogfile={site.supervisor_log}\nlogfile_maxbytes=0\npidfile={site.supervisor_pid}\n"
            f"nodaemon=true\nloglevel=info\nchildlogdir={witness}\ndirectory={site.base}"
        ),
        (
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface"
        ),
        f"[supervisorctl]\nserverurl=unix://{site.socket}",
    ]
    sections += [
        f"[program:{name}]\ncommand={sys.executable} -I -S {program} {config}\n"
        f'environment={PROFILE_VARIABLE}="{witness / name}.json"\n'
        "autostart=true\nautorestart=false\nstartsecs=1\nstartretries=0\nstopwaitsecs=5\n"
        f"stdout_logfile=NONE\nstderr_logfile={witness / name}.err"
        for name, program, config in (
            (site.worker, site.worker_program, site.worker_config.path),
            (site.web, site.web_program, site.web_config.path),
        )
    ]
    return "\n\n".join(sections) + "\n"


def profiles(site: Site, witness: Path) -> dict[str, dict[str, object]]:
    """Return what the programs read at start beside their configuration."""
    common: dict[str, object] = {
        "starts": str(witness / "starts.log"),
        "log_format": site.log_format,
        "log_time": site.log_time,
        "wording": dict(site.wording),
        "hiccups": site.noise.hiccups,
        "heartbeat": site.heartbeat.name,
        "records": site.records.name,
    }
    fill = {
        "records": site.records.stem,
        "reference": site.reference.name,
        "small": "{small}",
        "number": "{number}",
    }
    web = {
        **common,
        "name": site.web,
        "log": str(site.web_log),
        "style": site.web_config.style,
        "keys": {role: list(key) for role, key in site.web_config.keys.items()},
        "worker": site.worker,
        "probe": site.probe.name,
        "heartbeat_limit": HEARTBEAT_LIMIT,
        "routine_lines": [line.format(**fill) for line in _some(site, words.WEB_ROUTINE)],
        "hiccup_lines": [[level, line.format(**fill)] for level, line in _some(site, words.WEB_HICCUPS)],
    }
    worker = {
        **common,
        "name": site.worker,
        "log": str(site.worker_log),
        "style": site.worker_config.style,
        "keys": {role: list(key) for role, key in site.worker_config.keys.items()},
        "acknowledged": str(witness / "acknowledged.log"),
        "trace": site.trace.name,
        "trace_line": site.wording["trace_line"].format(**fill),
        "routine_lines": [line.format(**fill) for line in _some(site, words.WORKER_ROUTINE)],
        "hiccup_lines": [[level, line.format(**fill)] for level, line in _some(site, words.WORKER_HICCUPS)],
    }
    return {site.web: web, site.worker: worker}


def _some(site: Site, pool: tuple[_T, ...]) -> list[_T]:
    return draw(site.seed, f"lines/{len(pool)}").sample(pool, k=len(pool) // 2 + 1)


def _write_history(site: Site, witness: Path) -> None:
    now = time.time()
    since = now - site.noise.history * _HOUR
    programs = profiles(site, witness)
    for name, path in ((site.web, site.web_log), (site.worker, site.worker_log)):
        pick = draw(site.seed, f"history/{name}")
        profile = programs[name]
        path.write_text(_past_lines(site, pick, name, profile, since, now), encoding="utf-8")
    pick = draw(site.seed, "past-records")
    at, lines, acknowledged = since, [], []
    for number in range(1, pick.randint(150, 900)):
        at = min(at + pick.uniform(1, 60), now)
        line, acknowledgement = record_line(number, at, pick)
        lines.append(line)
        acknowledged.append(acknowledgement)
    site.records.write_text("".join(lines), encoding="utf-8")
    (witness / "acknowledged.log").write_text("".join(acknowledged), encoding="utf-8")
    (witness / "starts.log").touch()
    formatter = logging.Formatter(site.log_format, site.log_time)
    count, process = pick.randint(200, 3000), pick.randint(300, 9000)
    trace_line = str(programs[site.worker]["trace_line"])
    texts = []
    for number in range(count):
        text = trace_line.format(number=number + 10_000, small=number % 90)
        at = since + (now - since) * number / count
        texts.append(_past_line(formatter, site.worker, "DEBUG", text, at, process))
    site.trace.write_text("".join(texts), encoding="utf-8")


def _past_lines(
    site: Site, pick: random.Random, name: str, profile: dict[str, object], since: float, until: float
) -> str:
    formatter = logging.Formatter(site.log_format, site.log_time)
    routine, hiccups = profile["routine_lines"], profile["hiccup_lines"]
    assert isinstance(routine, list)
    assert isinstance(hiccups, list)
    process = pick.randint(300, 9000)
    lines, at = [], since + pick.uniform(1, 40)
    while at < until - 2:
        if pick.random() < site.noise.hiccups / 2:
            level, text = pick.choice(hiccups)
        else:
            level, text = "INFO", pick.choice(routine)
        values = {"small": pick.randint(2, 99), "number": pick.randint(1000, 99999)}
        lines.append(_past_line(formatter, name, level, text.format(**values), at, process))
        at += pick.uniform(5, 45)
    return "".join(lines)


def _past_line(
    formatter: logging.Formatter, name: str, level: str, text: str, at: float, process: int
) -> str:
    record = logging.LogRecord(name, logging.getLevelNamesMapping()[level], "", 0, text, None, None)
    record.created, record.msecs, record.process = at, (at % 1) * 1000, process
    return formatter.format(record) + "\n"


def _write_bulk(site: Site, *, bounded: bool) -> None:
    pick = draw(site.seed, "bulk")
    total = (
        int(site.noise.volume * site.noise.used) - _ROOM_FOR_SMALL_FILES if bounded else _PLAIN_FOLDER_BYTES
    )
    stem, suffix = pick.choice(words.BULK_STEMS), pick.choice(words.BULK_SUFFIXES)
    folder = site.data / pick.choice(("", "old", "files"))
    folder.mkdir(exist_ok=True)
    weights = [pick.uniform(0.3, 3.0) for _ in range(pick.randint(3, 9))]
    at = time.time()
    for number, weight in enumerate(weights, start=1):
        path = folder / f"{stem}-{number:04d}.{suffix}"
        path.write_bytes(pick.randbytes(int(total * weight / sum(weights))))
        at -= pick.uniform(0.5, 30) * _HOUR
        os.utime(path, (at, at))


def _write_backups(site: Site) -> None:
    pick = draw(site.seed, "backups")
    site.backups.mkdir()
    at = time.time()
    for stem in pick.sample(words.BACKUP_STEMS, k=pick.randint(2, 4)):
        at -= pick.uniform(10, 90) * _HOUR
        path = site.backups / f"{stem}-{time.strftime('%Y%m%d', time.localtime(at))}.tar"
        path.write_bytes(pick.randbytes(pick.randint(2_000, 60_000)))
        os.utime(path, (at, at))
