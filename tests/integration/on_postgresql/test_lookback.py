"""The tests of `tests.unit.test_lookback`, on PostgreSQL."""

from tests.unit.test_lookback import (  # noqa: F401
    home,
    test_a_breaker_that_is_open_stays_open_however_old_its_failures_are,
    test_an_action_that_was_taken_back_late_counts_from_then_on,
    test_what_a_rate_limit_counts_stays,
    test_what_comes_back_again_and_again_is_still_a_loop,
    test_what_the_blast_radius_of_any_policy_counts_stays,
)
