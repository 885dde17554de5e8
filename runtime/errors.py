"""Errors of the runtime; each docstring is the first line of its message."""


class OperationError(Exception):
    """An operation could not go on."""


class ConfigurationError(OperationError):
    """A setting, an alert or another file of the operator is not usable (a human must mend it)."""


class StoreError(OperationError):
    """The state of Watchkeeper cannot be read or written (a human must decide)."""


class PolicyError(OperationError):
    """A policy is not usable, so nothing would be allowed under it (a human must mend it)."""


class ApprovalError(OperationError):
    """An approval is unknown, used, expired, or not this person's to give."""


class EscalationError(OperationError):
    """An escalation is unknown, over, or not to be answered so."""


class NotSentError(OperationError):
    """A notification was certainly not sent (it is tried again, then a human must mend its channel)."""


class DeliveryUnknownError(OperationError):
    """Whether a notification was sent cannot be told (it is not sent again, a human must look)."""


class IdentityError(ApprovalError):
    """It is not known who somebody is, or they may not do this (a person with the role must)."""


class AuditError(OperationError):
    """The audit log cannot be trusted or written (a human must look)."""


class LedgerError(OperationError):
    """The effect ledger forbids this: an effect is done at most once."""


class ObserveOnlyError(OperationError):
    """This Watchkeeper only observes: nothing is applied or taken back, and nobody is asked."""


class LimitError(OperationError):
    """A rate limit, an open circuit breaker or a loop forbids an action for now (a human may decide)."""


class UnknownIncidentError(OperationError):
    """No incident of that id is in the store."""


class UnknownRecordError(OperationError):
    """No decision or step of that id is in the store."""


class IncidentBusyError(OperationError):
    """Another process runs this incident now (wait for it, or end it)."""


class TransitionError(OperationError):
    """An incident cannot go from its status to that one."""


class FencedError(OperationError):
    """Another worker took this over meanwhile: nothing more of it is written here (it goes on there)."""


class HaltedError(OperationError):
    """Somebody stopped everything: nothing is done until that is lifted (a human must decide)."""


class BackupError(OperationError):
    """A backup cannot be made, or is not one that may be restored (nothing was changed)."""


class ReviewError(OperationError):
    """A review does not fit its decision, or cannot be exported."""


class RetentionError(OperationError):
    """Something would be removed that should be kept elsewhere first (a human must decide)."""
