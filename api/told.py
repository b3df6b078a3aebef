"""What bastions are told, as JSON: the other side of `bastion.authority.state`, which takes no other form.

Numbers that fill 63 bits are text, since JSON's readers round them; names are in our grammar.
"""

from typing import Any

from api.records import Enrolment
from ca.revocation import Revocations


def revocations_told(revocations: Revocations) -> dict[str, Any]:
    """What does not count any more."""
    said: dict[str, Any] = {
        "everyone_before": revocations.everyone_before,
        "serials": [str(serial) for serial in sorted(revocations.serials)],
        "users": dict(revocations.users),
        "servers": {server.login: before for server, before in revocations.servers.items()},
    }
    # Left out while it says nothing, since bastions of before an upgrade take no field that they do not know.
    if revocations.shares:
        said["shares"] = {
            user: {server.login: before for server, before in servers.items()}
            for user, servers in revocations.shares.items()
        }
    return said


def enrolment_told(one: Enrolment) -> dict[str, Any]:
    """A pod that may be entered."""
    return {
        "login": one.server.login,
        "instance": str(one.instance.id),
        "address": one.address,
        "ssh_port": one.ssh_port,
        "key_port": one.key_port,
        "unix_user": one.unix_user,
        "host_key": one.host_key.line,
    }
