"""The tests of `tests.unit.test_checkpoints`, on PostgreSQL."""

from tests.unit.test_checkpoints import *  # noqa: F403
