"""The tests of `tests.unit.test_reviews`, on PostgreSQL."""

from tests.unit.test_reviews import *  # noqa: F403
