"""The tests of `tests.unit.test_halt` about the halt that is kept, on PostgreSQL."""

from tests.unit.test_halt import (  # noqa: F401
    journal,
    test_a_broken_audit_log_does_not_keep_anybody_from_stopping_but_from_going_on,
    test_a_halt_holds_until_it_is_lifted_also_after_a_restart,
    test_no_effect_is_begun_after_a_halt_and_its_approval_is_not_used_up,
    test_who_watches_is_told_once,
)
