"""The tests of `tests.unit.test_retention` about what goes and stays, on PostgreSQL."""

from tests.unit.test_retention import (  # noqa: F401
    o,
    test_an_ended_incident_goes_and_a_live_one_stays_whole,
    test_batches_are_bounded,
    test_what_was_reviewed_goes_only_if_that_is_said,
)
