"""The tests of `tests.unit.test_jobs`, on PostgreSQL."""

from tests.unit.test_jobs import *  # noqa: F403
