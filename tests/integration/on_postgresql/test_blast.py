"""The tests of `tests.unit.test_blast` about what is kept, on PostgreSQL."""

from tests.unit.test_blast import (  # noqa: F401
    home,
    test_an_approval_is_not_used_up_where_the_limit_is_reached,
    test_asked_outside_of_the_transaction_both_would_slip_under_it,
    test_effects_of_all_incidents_count_until_they_are_too_old,
    test_taking_back_touches_again,
    test_two_changes_at_once_touch_one_host,
    test_two_workers_do_not_both_slip_under_a_limit,
    test_what_did_not_take_place_touched_nothing,
)
