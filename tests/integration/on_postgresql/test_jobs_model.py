"""The tests of `tests.unit.test_jobs_model`, on PostgreSQL."""

from tests.unit.test_jobs_model import *  # noqa: F403
