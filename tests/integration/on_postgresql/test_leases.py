"""The tests of `tests.unit.test_leases`, on PostgreSQL."""

from tests.unit.test_leases import *  # noqa: F403
