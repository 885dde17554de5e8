"""The tests of `tests.unit.test_escalation`, on PostgreSQL."""

from tests.unit.test_escalation import *  # noqa: F403
