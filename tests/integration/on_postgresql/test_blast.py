"""The tests of `tests.unit.test_blast`, on PostgreSQL."""

from tests.unit.test_blast import *  # noqa: F403
