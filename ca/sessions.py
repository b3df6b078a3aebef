"""What a live session is called outside of its bastion, so that whoever ends it ends that one and no other.

A bastion process has a secret of its own, which it tells the api alone, and names its sessions as it likes. The public
name is a hash of both: a bastion that learns another's public name cannot report a session of that name, so nobody
ends somebody else's session by having one made up.
"""

import hashlib

NAME_LENGTH = 32
"""Hexadecimal digits of a public name: 128 bits."""


def public_name(process: str, session: str) -> str:
    """The public name of what a bastion process with the secret `process` calls `session`."""
    return hashlib.sha256(f"{process}\n{session}".encode()).hexdigest()[:NAME_LENGTH]


def process_name(process: str) -> str:
    """What a process is filed under: its secret cannot be found from it."""
    return hashlib.sha256(process.encode()).hexdigest()
