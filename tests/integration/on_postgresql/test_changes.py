"""The tests of `tests.unit.test_changes`, on PostgreSQL."""

from tests.unit.test_changes import *  # noqa: F403
