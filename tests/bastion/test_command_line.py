"""Why: an operator's terminal obeys what it is shown, and whoever chose a name must not give it orders."""

from __future__ import annotations

from bastion.__main__ import table


def test_a_name_neither_commands_the_terminal_nor_forges_a_row() -> None:
    row = {"id": 1, "identity": "eve\x1b[2J\nmallory", "login": "eve\u202e", "mode": "jump", "received": 0, "sent": 0}
    shown = table({"sessions": [row]}, "sessions")
    assert len(shown.split("\n")) == 2
    assert shown.replace("\n", "").isprintable()
    assert "eve\\x1b[2J\\nmallory" in shown
