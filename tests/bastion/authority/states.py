"""A state of the api as its interface documents it, for the tests beside."""

from typing import Any

from ca.keys import PublicKey
from ca.names import Server
from ca.revocation import Revocations
from ca.trust import TrustedKeys
from tests.support.pods import key

TRUST = TrustedKeys(user=(key(11), key(12)), host=(key(13),), hop=(key(14),))
REVOCATIONS = Revocations(
    everyone_before=5,
    serials=frozenset({7, (1 << 63) - 1}),
    users={"alice": 1, "Bob@example.org": 2},
    servers={Server("alice", "gpu"): 3, Server("Bob@example.org"): 4},
    shares={"Bob@example.org": {Server("alice", "gpu"): 6}},
)


def lines(*keys: PublicKey) -> list[str]:
    return [one.line for one in keys]


def state(**changed: Any) -> dict[str, Any]:
    return {
        "version": "1",
        "zone": "hub",
        "epoch": "0123456789abcdef",
        "raw_keys": {"direct": True, "capabilities": ["exec", "pty"]},
        "heard_seconds_ago": 0.5,
        "trust": {"user": lines(key(11), key(12)), "host": lines(key(13)), "hop": lines(key(14))},
        "revocations": {
            "everyone_before": 5,
            "serials": ["7", str((1 << 63) - 1)],
            "users": {"alice": 1, "Bob@example.org": 2},
            "servers": {"alice+gpu": 3, "=42ob=40example.org": 4},
            "shares": {"Bob@example.org": {"alice+gpu": 6}},
        },
        "enrolled": [
            {
                "login": "alice+gpu",
                "instance": "1763000000000000",
                "address": "127.0.0.1",
                "ssh_port": 40222,
                "key_port": 8080,
                "unix_user": None,
                "host_key": key(1).line,
            }
        ],
    } | changed
