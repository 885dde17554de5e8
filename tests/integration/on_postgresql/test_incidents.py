"""The tests of `tests.unit.test_incidents`, on PostgreSQL."""

from tests.unit.test_incidents import *  # noqa: F403
