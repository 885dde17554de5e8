"""The tests of `tests.unit.test_limits` about what is counted, on PostgreSQL."""

from tests.unit.test_limits import (  # noqa: F401
    home,
    test_a_person_closes_a_breaker_and_the_audit_log_tells,
    test_a_reset_that_cannot_be_audited_does_not_happen,
    test_after_a_time_one_try_is_asked_for_even_where_the_policy_allows,
    test_an_action_that_keeps_failing_is_stopped_and_people_get_its_history,
    test_failures_far_apart_and_successes_between_open_nothing_and_something,
    test_more_actions_than_a_window_allows_are_refused_until_it_has_moved_on,
    test_the_limit_holds_inside_the_intent_whatever_was_seen_before,
    test_the_same_remedy_long_after_is_no_loop,
)
