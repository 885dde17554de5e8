"""The tests of `tests.unit.test_approval_races`, on PostgreSQL."""

from tests.unit.test_approval_races import *  # noqa: F403
