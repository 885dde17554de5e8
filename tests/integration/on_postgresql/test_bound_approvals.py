"""The tests of `tests.unit.test_bound_approvals`, on PostgreSQL."""

from tests.unit.test_bound_approvals import *  # noqa: F403
