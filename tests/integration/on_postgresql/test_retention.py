"""The tests of `tests.unit.test_retention`, on PostgreSQL."""

from tests.unit.test_retention import *  # noqa: F403
