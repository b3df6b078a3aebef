"""What the bastion says in its own name, in the middle of somebody's session."""

NAME = "jupyterhub-bastion"
"""Who speaks."""


def printable(sentence: str) -> str:
    """One line that does nothing to a terminal, of bounded length."""
    return "".join(char if char.isprintable() else " " for char in sentence)[:400]
