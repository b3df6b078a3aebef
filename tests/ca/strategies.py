"""Why: what JupyterHub and the world may hand us, as hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st

from ca.claims import Claims, Running, TokenKind, Via
from ca.limits import Capability
from ca.names import Instance, Server
from ca.policy import CertificateRequest, GroupRule, Rules
from tests.ca.makers import NOW, public_key

# Hypothesis' text() holds no surrogates when its characters are encodable; names in the wild are mostly plain.
unicode_text = st.text(st.characters(codec="utf-8"), max_size=40)
plain_names = st.sampled_from(["alice", "bob", "gpu", "a.b", "-x", "a+b", "a/b", "Bob@example.org", "ünï", "a b", "*"])
owners = st.one_of(plain_names, unicode_text.filter(bool))
server_names = st.one_of(st.just(""), plain_names, unicode_text)
servers = st.builds(Server, owners, server_names)
instances = st.builds(Instance, servers, st.integers(1, (1 << 63) - 1))
capabilities = st.frozensets(st.sampled_from(Capability))
zones = st.sampled_from(["hub", "a.b", "ssh.example.org", "x-1"])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(["user", "alice"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "kind", "scopes", "servers", "user", "server", "groups", "started", "pending", ""])
            | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)

# Few names, so that requests and claims meet.
_few = st.builds(Server, st.sampled_from(["alice", "bob", "ünï"]), st.sampled_from(["", "gpu", "a/b"]))
running = st.builds(
    Running,
    instance=st.builds(Instance, _few, st.integers(1, 1 << 60)),
    ready=st.booleans(),
    via=st.sampled_from(Via),
)
claims = st.builds(
    Claims,
    user=st.sampled_from(["alice", "bob", "ünï"]),
    kind=st.sampled_from(TokenKind),
    admin=st.booleans(),
    groups=st.frozensets(st.sampled_from(["students", "staff"])),
    running=st.lists(running, max_size=6).map(tuple),
    until=st.none() | st.floats(NOW - 1000, NOW + 1e6),
)
_group_rules = st.builds(GroupRule, allow=capabilities, deny=capabilities)
rules = st.builds(
    Rules,
    lifetime=st.integers(60, 10**6),
    shared_lifetime=st.integers(60, 10**6),
    capabilities=capabilities,
    groups=st.dictionaries(st.sampled_from(["students", "staff"]), _group_rules),
    admin_ssh=st.booleans(),
    bind_source_address=st.booleans(),
    raw_keys_direct=st.booleans(),
    raw_key_capabilities=capabilities,
)
peers = st.none() | st.ip_addresses().map(str) | st.sampled_from(["::ffff:192.0.2.7", "fe80::1%eth0", "testclient"])
requests = st.builds(
    CertificateRequest,
    key=st.just(public_key()),
    servers=st.none() | st.lists(_few, max_size=4).map(tuple),
    lifetime=st.none() | st.integers(-10, 10**7),
    peer=peers,
)
