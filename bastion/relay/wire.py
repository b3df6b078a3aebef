"""The door to the only room that touches asyncssh's internals.

asyncssh has public call-backs for sessions and forwards, but a relay on them loses what they do not carry: unknown
requests, commands that are not UTF-8, the order of replies, the pod's own refusals. So these modules stand on
how asyncssh 2.24.1 works inside: every module here whose name begins with `wire`. Its version is pinned, and
`tests/bastion/relay/test_wire_contract.py` lists each private name with what we rely on; read it before an upgrade.

What is relied on:

- a connection finds the handler of a message in the class's `_packet_handlers`, and calls it with
  (self, type, sequence number, packet); it calls `process_packet`, `process_open_confirmation`, `process_open_failure`
  and `process_connection_close` of what `add_channel` was given;
- `validate_public_key` decides alone whether a key proves a login, `get_kbdint_challenge` and
  `validate_kbdint_response` what keyboard-interactive asks and means, `send_userauth_success` and `_failure` are
  the only ways out of authentication, `reload_config` is called before;
- `_transport` is None once the connection is being cut; `_force_close` (behind `abort`) then ends in the owner's
  `connection_lost`;
- `_kex_complete` is false while packets are kept for later, and `send_newkeys` sends them;
- `_recv_data` calls `_recv_handler` while there is something in `_inpbuf` and it says true, and turns errors into the
  end of the connection. Between packets the handler is `_recv_pkthdr`, which leaves `_recv_packet` in its place;
- `_recv_encryption` and `_send_encryption` are used by their three methods only, and hold what RFC 5647 needs;
- bytes leave by `_send` only.
"""

from collections.abc import Callable, Sequence

import asyncssh

from bastion.relay.front import ClientLink, Front, HostTrust
from bastion.relay.limits import Algorithms, RelayLimits
from bastion.relay.wire_cipher import Workbench
from bastion.relay.wire_client import ClientSide
from bastion.relay.wire_login import ClientOwner
from bastion.relay.wire_options import VERSION, HostKey, PodLogin, need_no_local_user, offered_kex, server_options
from bastion.relay.wire_pod import PodSide
from bastion.relay.wire_pod import connect_pod as _connect_pod

__all__ = ["ClientSide", "Entrance", "HostKey", "PodLogin", "PodSide", "connect_pod", "see_host_key"]


class Entrance:
    """Makes the protocol for each new TCP connection: give it to `loop.create_server`."""

    def __init__(
        self,
        front: Callable[[ClientLink], Front],
        host_keys: Sequence[HostKey],
        limits: RelayLimits,
        algorithms: Algorithms,
    ) -> None:
        self._front = front
        self._limits = limits
        self._algorithms = algorithms
        self._bench = Workbench()
        self._options = self._made(host_keys)

    def present(self, host_keys: Sequence[HostKey]) -> None:
        """From the next connection on, show these host keys and certificates."""
        self._options = self._made(host_keys)

    def __call__(
        self, front: Callable[[ClientLink], Front] | None = None, peer: tuple[str, int] | None = None
    ) -> ClientSide:
        """The protocol of one connection, with a front of its own: `front` makes it, where one is given.

        `peer` is the client's address where the socket's is that of a proxy.
        """
        return ClientSide(front or self._front, self._options, self._limits, self._bench, peer)

    def _made(self, host_keys: Sequence[HostKey]) -> asyncssh.SSHServerConnectionOptions:
        return server_options(ClientOwner, host_keys, self._limits, self._algorithms)


async def connect_pod(
    link: ClientLink, address: str, port: int, *, login: PodLogin, trust: HostTrust, algorithms: Algorithms
) -> PodSide:
    """Connect to the pod's sshd at an IP address on behalf of `link`, check its host key, and log in.

    For `Front.upstream`. Limits are those of the client's connection. Raises `PodFailure`.
    """
    if not isinstance(link, ClientSide):
        raise TypeError("the link must be the one that the front was made with")
    return await _connect_pod(link, address, port, login=login, trust=trust, algorithms=algorithms)


async def see_host_key(address: str, port: int, algorithm: str, algorithms: Algorithms) -> bytes | None:
    """The plain host key of that algorithm behind a pod's port, in wire format, proven by a key exchange.

    Nobody logs in. The caller sets the time limit. Raises `OSError` and `asyncssh.Error`.
    """
    need_no_local_user()
    key = await asyncssh.get_server_host_key(
        address,
        port,
        kex_algs=offered_kex(algorithms),
        server_host_key_algs=[algorithm],
        client_version=VERSION,
        config=None,
    )
    return None if key is None else key.public_data
