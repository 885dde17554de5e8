"""The tests of `tests.unit.test_training_jobs`, on PostgreSQL."""

from tests.unit.test_training_jobs import *  # noqa: F403
