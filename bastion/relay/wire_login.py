"""How a client proves who it is, before anything else may be asked.

asyncssh's own judgement of keys is replaced wholly: it knows authorized_keys and CAs, the front knows who may
enter now.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncssh
from asyncssh.auth import KbdIntChallenge, KbdIntResponse
from asyncssh.constants import DISC_NO_MORE_AUTH_METHODS_AVAILABLE, DISC_PROTOCOL_ERROR, MSG_KEXINIT
from asyncssh.packet import SSHPacket, String

from bastion.relay.ciphers import ciphers_for
from bastion.relay.kexinit import guessed_wrong
from bastion.relay.proof import proves
from bastion.relay.sentences import NAME, printable
from bastion.relay.wire_pod import Client
from ca.certificate import MAX_CERTIFICATE_BYTES
from ca.errors import Refusal

_MSG_PING, _MSG_PONG = 192, 193
_LARGEST_PING = 32 << 10
"""OpenSSH's have a few bytes. The protocol (OpenSSH's PROTOCOL, 1.9) names no bound; this is what a data packet has."""


STRANGERS_PACKET = 35_000
"""Bytes of a packet before the first keys are exchanged: what RFC 4253 (6.1) asks of everybody. asyncssh's 256 KiB
would be kept for each stranger who begins a packet and does not end it."""
ENTERING_PACKET = MAX_CERTIFICATE_BYTES + (8 << 10)
"""The same until the login is over: the largest certificate that counts, with a signature and names."""


class ClientOwner(asyncssh.SSHServer):
    """asyncssh's call-backs for the client's connection."""

    def __init__(self) -> None:
        self._client: Entering | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remember whose call-backs these are."""
        if isinstance(conn, Entering):
            self._client = conn
            conn.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if self._client is not None:
            self._client.over(exc)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002 - asyncssh's interface
        """Everybody must authenticate."""
        return True

    def auth_completed(self) -> None:
        """The client is in."""
        if self._client is not None:
            self._client.entered()

    def public_key_auth_supported(self) -> bool:
        """The method for everybody; the other one is the connection's own matter (`kbdint_auth_supported`)."""
        return True


class Entering(Client, asyncssh.SSHServerConnection):
    """The part of the client's connection that lets it in."""

    _login = ""
    _proven: tuple[str, bytes] | None = None
    _told: str | None = None
    """The login name for which somebody was shown where to log in: this connection has no other way any more."""
    _answered = False
    _signed = 0
    _probes = 0
    own_turn: Callable[[], Awaitable[None]] | None = None
    """Waited for before a key is looked at: many logins take turns."""

    def expect_strangers(self) -> None:
        """Until the login is over, take no larger packets than logins need."""
        self._usual_packet, self._max_recv_pktlen = self._max_recv_pktlen, STRANGERS_PACKET

    def begin(self) -> None:
        """The TCP connection is there, and its address known."""
        raise NotImplementedError

    def over(self, exc: Exception | None) -> None:
        """The connection is over."""
        raise NotImplementedError

    @property
    def login(self) -> str:
        """The login name that was proven."""
        return self._login

    def _send_kexinit(self) -> None:
        """asyncssh's, with what is offered to this kind of client."""
        if not self._session_id:
            self._enc_algs = ciphers_for(self._client_version, self._enc_algs)
        super()._send_kexinit()

    async def _process_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """asyncssh's, but for its idea of a wrong guess: Dropbear guesses, and goes by the letter of the protocol."""
        await super()._process_kexinit(pkttype, pktid, packet)
        self._ignore_first_kex = guessed_wrong(self._client_kexinit, self._server_kexinit)

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """A key exchange is over on our side."""
        super().send_newkeys(k, h)
        if not self._auth_complete:
            self._max_recv_pktlen = ENTERING_PACKET

    def _send_ext_info(self) -> None:
        """asyncssh's, and one more: OpenSSH's clients hide the rhythm of typing only where pings are answered."""
        self._extensions_to_send[b"ping@openssh.com"] = b"0"
        super()._send_ext_info()

    def _process_ping(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:  # noqa: ARG002 - asyncssh's interface
        """Give back what came (OpenSSH's PROTOCOL, section 1.9)."""
        data = packet.get_string()
        packet.check_end()
        if len(data) > _LARGEST_PING:
            raise asyncssh.DisconnectError(DISC_PROTOCOL_ERROR, f"A ping has {_LARGEST_PING} bytes at most")
        self.send_packet(_MSG_PONG, String(data))

    async def reload_config(self) -> None:
        """Nothing: asyncssh would read options and key files again, in a thread, for each login name."""

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """A key offered (no `msg`), or proven. Replaces asyncssh's own judgement wholly."""
        self._refuse_second_way()
        if msg:
            self._signed += 1
        else:
            self._probes += 1
        self._bound(more=1)
        if self.own_turn is not None:
            await self.own_turn()
        if not msg:
            return await self.front.offer(username, key_data)
        if not proves(key_data, msg, signature, self._session_id):
            return False
        verdict = await self.front.prove(username, key_data)
        if verdict.ok:
            self._proven = username, key_data
        else:
            self._explain(verdict.sentence)
        return verdict.ok

    def kbdint_auth_supported(self) -> bool:
        """Whether somebody without a key may log in elsewhere. asyncssh's own answer is that of passwords."""
        return self._told is None and self.front.interactive(self._username)

    async def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> KbdIntChallenge:
        """Keyboard-interactive (RFC 4256) without a prompt: a text to be shown, and then it is our turn to wait.

        asyncssh takes anything else that is true for success, so this is a challenge or False.
        """
        del lang, submethods
        self._refuse_second_way()
        self._proven = None
        text = await self.front.invite(username)
        if isinstance(text, Refusal):
            self._explain(text.sentence)
            return False
        self._told = username
        self._cancel_login_timer()
        return "", text, "", ()

    async def validate_kbdint_response(self, username: str, responses: KbdIntResponse) -> KbdIntChallenge:
        """A text was shown. There was nothing to answer, and one answer is enough: another would ask anew."""
        if self._told != username or self._answered or responses:
            raise asyncssh.DisconnectError(DISC_PROTOCOL_ERROR, "An answer to nothing that was asked")
        self._answered = True
        credential = await self.front.invited(username)
        if isinstance(credential, str):
            self._answered = False
            return "", credential, "", ()
        if isinstance(credential, Refusal):
            self.hang_up(printable(credential.sentence))
            return False
        self._proven = username, credential
        return True

    def _refuse_second_way(self) -> None:
        """Whoever was shown where to log in waits outside of the bounds for strangers, and may not begin again."""
        if self._told is not None:
            raise asyncssh.DisconnectError(DISC_PROTOCOL_ERROR, "This connection waits for a login in a browser")

    def _explain(self, sentence: str | None) -> None:
        if sentence and not self._auth_complete:
            self.send_auth_banner(f"{NAME}: {sentence}\r\n")

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Bounded: a client that goes on and on is sent away."""
        if self.ending:
            return
        self._refuse_second_way()
        self._probes += 1
        self._bound()
        super().send_userauth_failure(partial_success)

    def _bound(self, *, more: int = 0) -> None:
        """Send a client away that has tried enough: when it is told "no", or asks one more without waiting for that."""
        limits = self.limits
        for tried, most, name in (
            (self._signed, limits.signed_attempts + more, "signed_attempts"),
            (self._probes, 2 * limits.probes + more, "probes"),
        ):
            if tried >= most:
                limits.hit(name)
                raise asyncssh.DisconnectError(DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")

    async def send_userauth_success(self) -> None:
        """Only for the login name that the front let in, whatever path led here."""
        if self._proven is None or self._proven[0] != self._username:
            self.send_userauth_failure(False)
            return
        self._max_recv_pktlen = self._usual_packet
        await super().send_userauth_success()

    def entered(self) -> None:
        """The client is in."""
        if self._proven is not None:
            self._login, blob = self._proven
            self.front.authenticated(self._login, blob)

    _packet_handlers = {  # noqa: RUF012 - asyncssh's own shape
        **Client._packet_handlers,
        MSG_KEXINIT: _process_kexinit,
        _MSG_PING: _process_ping,
    }
