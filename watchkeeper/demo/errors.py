"""Errors of the demo; each docstring is the first line of its message."""


class DemoError(Exception):
    """The demo cannot go on (a human must decide)."""


class EnvironmentLostError(DemoError):
    """The environment is gone or cannot be reached from here."""


class ScenarioUnavailableError(DemoError):
    """The scenario cannot be played on this machine."""


class MountError(DemoError):
    """A file system could not be mounted or unmounted."""


class JudgeError(DemoError):
    """The oracle could not judge."""
