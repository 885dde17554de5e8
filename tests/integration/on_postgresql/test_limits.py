"""The tests of `tests.unit.test_limits`, on PostgreSQL."""

from tests.unit.test_limits import *  # noqa: F403
