"""Errors of the model layer; each docstring is the first line of its message."""


class ModelError(Exception):
    """A model could not be hosted or asked."""


class UnknownModelError(ModelError):
    """No model of that id is in the catalog (a human must choose another)."""


class IntegrityError(ModelError):
    """A model file is not what its publisher signed off (a human must fetch it again)."""


class DownloadError(ModelError):
    """A model could not be fetched from any of its sources (a human must provide one)."""


class GrammarError(ModelError):
    """A schema or grammar cannot be enforced while decoding (a programming error of the caller)."""


class BudgetExceededError(ModelError):
    """An answer did not end within its token budget (the caller may ask again with more)."""


class CancelledError(ModelError):
    """A generation was cancelled by its caller."""


class PromptTooLongError(ModelError):
    """A prompt does not fit into what the model can attend to (the caller must shorten it)."""


class CapacityError(ModelError):
    """A request does not fit into the memory the engine may use (the caller must shorten it)."""


class BusyError(ModelError):
    """Too many requests wait already (the caller may ask again later)."""


class RemoteError(ModelError):
    """An endpoint could not be reached, or refused what it was asked (a human must look at it)."""


class InvalidReplyError(RemoteError):
    """An endpoint answered what the request does not allow (the caller may ask again, or elsewhere)."""


class AdapterError(ModelError):
    """An adapter cannot be used with this model (a human must choose or train another)."""


class CalibrationError(ModelError):
    """A calibration cannot be made or read (a human must mend the cases or calibrate again)."""


class PlotError(ModelError):
    """A plot cannot be drawn or written (a human must install what draws it, or name another place)."""
