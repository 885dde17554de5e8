"""Ways to break a configuration file; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from watchkeeper.demo.site import ConfigFile

_INVALID: Mapping[str, tuple[str | int, ...]] = {
    "port": ("80a0", 98080, 0, "auto"),
    "threads": ("many", 0, 640, "4x"),
    "timeout": ("30s", -5, "none"),
    "page": ("all", 0, -20),
    "level": ("verbos", "inof", "loud"),
}
"""Values that a program refuses when it starts."""


def break_config(config: ConfigFile, pick: Random) -> str:
    """Return the text of a configuration that does not work.

    Some texts keep the program from starting; with others it starts and fails when it is used.
    """
    kind = pick.choice(("value", "value", "missing", "misspelt", "syntax", "folder", "file"))
    if kind == "value":
        role = pick.choice(sorted(_INVALID))
        return config.with_values(**{role: pick.choice(_INVALID[role])}).text()
    if kind == "missing":
        gone = pick.choice(sorted(config.values))
        return replace(
            config, values={role: value for role, value in config.values.items() if role != gone}
        ).text()
    if kind == "misspelt":
        role = pick.choice(sorted(config.keys))
        section, key = config.keys[role]
        keys = {**config.keys, role: (section, key[1] + key[0] + key[2:])}
        return replace(config, keys=keys).text()
    if kind == "syntax":
        return _break_syntax(config, pick)
    role = "data" if kind == "folder" else "reference"
    path = Path(str(config.values[role]))
    wrong = path.with_name(
        pick.choice(("{0}-v2{1}", "{0}_new{1}", "{0}2{1}", "x{0}{1}")).format(path.stem, path.suffix)
    )
    return config.with_values(**{role: str(wrong)}).text()


def _break_syntax(config: ConfigFile, pick: Random) -> str:
    text = config.text()
    if config.style == "json":
        return pick.choice(
            (text[: len(text) * 2 // 3], text.replace(",\n", "\n", 1), text.replace('": ', '" ', 1))
        )
    head, _, rest = text.partition("]\n")
    return pick.choice((head + "\n" + rest, text.replace(" = ", " ", 1), "<<<<<<< HEAD\n" + text))
