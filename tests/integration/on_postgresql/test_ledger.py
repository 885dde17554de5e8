"""The tests of `tests.unit.test_ledger`, on PostgreSQL."""

from tests.unit.test_ledger import *  # noqa: F403
