"""The help of every command is told in paragraphs that fit any terminal."""

from watchkeeper.cli import build_app


def test_no_paragraph_of_a_help_text_is_broken_within_a_sentence() -> None:
    broken = []
    waiting = [build_app()]
    while waiting:
        app = waiting.pop()
        waiting += [group.typer_instance for group in app.registered_groups if group.typer_instance]
        for command in app.registered_commands:
            said = command.help or ""
            assert said, command.callback
            broken += [part for part in said.split("\n\n") if "\n" in part]
    assert broken == []
