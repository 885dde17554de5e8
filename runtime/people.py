"""Who sits at this terminal."""

from __future__ import annotations

import os
import pwd


def current_person() -> str:
    """The name of this process's user, as the system knows it.

    The environment (``LOGNAME``, ``USER``) is not asked: whoever asks for an action could take another
    name there and approve it.
    """
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid-{number}"
