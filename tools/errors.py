"""Errors of the tool layer; each docstring is the first line of its message."""


class ToolError(Exception):
    """A tool could not do what it was asked."""


class UnknownToolError(ToolError):
    """No tool of that name is registered."""


class UnknownHostError(ToolError):
    """The host is not in the inventory."""


class PluginError(ToolError):
    """A plugin cannot be loaded (whoever wrote or configured it must mend it)."""


class ArgumentError(ToolError):
    """Arguments of a tool are not valid (the model or the caller can mend them).

    Attributes:
        place: Which argument, and where in it; empty if all of them together.
    """

    def __init__(self, message: str, *, place: tuple[int | str, ...] = ()) -> None:
        super().__init__(message)
        self.place = place


class UnenforceableError(ToolError):
    """No grammar keeps a model to the arguments of a tool (whoever wrote the tool must change them)."""


class InventoryError(ToolError):
    """The inventory is not usable (a human must mend it)."""


class CollectError(ToolError):
    """A fact could not be read from its host."""


class PlanError(ToolError):
    """An action cannot be planned on this target (another action or a human is needed)."""


class ApplyError(ToolError):
    """An action failed while it was applied; its outcome says how far it came."""


class DriftError(ToolError):
    """The target is no longer as it was when the plan was made."""


class TermsChangedError(DriftError):
    """The target is as it was, and the tool, its arguments or the policy are not."""


class RollbackError(ToolError):
    """A change could not be undone (a human must decide)."""


class UntrustedTextError(ToolError):
    """Text that others can write was about to be told to an agent with tools (mend the caller)."""


class DataError(ToolError):
    """Data cannot be used (whoever keeps them must mend them)."""


class ArtefactError(ToolError):
    """A folder holds no usable predictor."""


class VersionError(ToolError):
    """A version of a predictor is not there, is damaged, or is not named as it was thought to be."""


class MovedError(VersionError):
    """An alias does not name what it was thought to name: nothing was moved (look again and decide)."""


class RecordingError(ToolError):
    """Predictions that are kept for their labels cannot be read or written (a human must look)."""


class UnknownTrainerError(ToolError):
    """No trainer of that name exists."""


class MissingExtraError(ToolError):
    """An optional part of the distribution is not installed."""


class DivergedError(ToolError):
    """Training left the finite numbers (its data or its learning rate must change)."""


class JobCancelledError(ToolError):
    """A job was cancelled."""


class JobSpecError(ToolError):
    """What a job is to do is not usable (whoever wrote it must mend it)."""


class JobFolderError(ToolError):
    """A job's folder cannot be read or written."""


class ClusterError(ToolError):
    """A cluster that runs jobs cannot be asked, or does not do what it was told."""


class JobStateError(ToolError):
    """No job of that id exists, or it cannot be changed as it stands."""
