"""The tests of `tests.unit.test_halt`, on PostgreSQL."""

from tests.unit.test_halt import *  # noqa: F403
