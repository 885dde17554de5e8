"""The tests of `tests.unit.test_approvals`, on PostgreSQL."""

from tests.unit.test_approvals import *  # noqa: F403
