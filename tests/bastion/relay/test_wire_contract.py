"""Why: the relay stands on names that asyncssh never promised. This says which, and what is relied on of each.

Where a test here fails after an upgrade, read what changed in asyncssh before anything else, and run the parity suite.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import asyncssh
import pytest
from asyncssh.connection import SSHClientConnection, SSHConnection, SSHServerConnection
from asyncssh.packet import SSHPacketHandler

ROOM = (
    "wire.py",
    "wire_channel.py",
    "wire_cipher.py",
    "wire_client.py",
    "wire_explain.py",
    "wire_hotpath.py",
    "wire_link.py",
    "wire_login.py",
    "wire_options.py",
    "wire_pod.py",
    "wire_pressure.py",
    "wire_reading.py",
    "wire_speech.py",
    "wire_tunnels.py",
)

CALLED_OR_REPLACED = [
    (SSHConnection, "_process_channel_open", ["self", "_pkttype", "_pktid", "packet"]),
    (SSHConnection, "_process_global_request", ["self", "_pkttype", "_pktid", "packet"]),
    (SSHConnection, "_send_global_request", ["self", "request", "args", "want_reply"]),
    (SSHConnection, "_make_global_request", ["self", "request", "args"]),
    (SSHConnection, "_send_disconnect", ["self", "code", "reason", "lang"]),
    (SSHConnection, "_force_close", ["self", "exc"]),
    (SSHConnection, "_cleanup", ["self", "exc"]),
    (SSHConnection, "_send", ["self", "data"]),
    (SSHConnection, "_send_ext_info", ["self"]),
    (SSHConnection, "_send_kexinit", ["self"]),
    (SSHConnection, "_process_kexinit", ["self", "_pkttype", "_pktid", "packet"]),
    (SSHConnection, "_recv_data", ["self"]),
    (SSHConnection, "_recv_pkthdr", ["self"]),
    (SSHConnection, "_reset_keepalive_timer", ["self"]),
    (SSHConnection, "_keepalive_timer_callback", ["self"]),
    (SSHConnection, "send_packet", ["self", "pkttype", "args", "handler"]),
    (SSHConnection, "send_newkeys", ["self", "k", "h"]),
    (SSHConnection, "add_channel", ["self", "chan"]),
    (SSHConnection, "remove_channel", ["self", "recv_chan"]),
    (SSHConnection, "create_task", ["self", "coro", "task_logger"]),
    (
        SSHConnection,
        "send_channel_open_confirmation",
        ["self", "send_chan", "recv_chan", "recv_window", "recv_pktsize", "result_args"],
    ),
    (SSHConnection, "send_channel_open_failure", ["self", "send_chan", "code", "reason", "lang"]),
    (SSHConnection, "send_userauth_failure", ["self", "partial_success"]),
    (SSHConnection, "send_userauth_success", ["self"]),
    (SSHConnection, "connection_made", ["self", "transport"]),
    (SSHConnection, "data_received", ["self", "data", "datatype"]),
    (SSHConnection, "set_keepalive", ["self", "interval", "count_max"]),
    (SSHServerConnection, "__init__", ["self", "loop", "options", "acceptor", "error_handler", "wait"]),
    (SSHServerConnection, "reload_config", ["self"]),
    (SSHServerConnection, "validate_public_key", ["self", "username", "key_data", "msg", "signature"]),
    (SSHServerConnection, "kbdint_auth_supported", ["self"]),
    (SSHServerConnection, "get_kbdint_challenge", ["self", "username", "lang", "submethods"]),
    (SSHServerConnection, "validate_kbdint_response", ["self", "username", "responses"]),
    (SSHConnection, "_cancel_login_timer", ["self"]),
    (SSHServerConnection, "send_auth_banner", ["self", "msg", "lang"]),
    (SSHClientConnection, "__init__", ["self", "loop", "options", "acceptor", "error_handler", "wait"]),
    (SSHClientConnection, "validate_server_host_key", ["self", "key_data"]),
    (SSHPacketHandler, "process_packet", ["self", "pkttype", "pktid", "packet"]),
    (SSHPacketHandler, "log_sent_packet", ["self", "pkttype", "pktid", "packet", "note"]),
    (SSHPacketHandler, "log_received_packet", ["self", "pkttype", "pktid", "packet", "note"]),
]

ATTRIBUTES = [
    "_transport",
    "_max_recv_pktlen",
    "_deferred_packets",
    "_loop",
    "_kex_complete",
    "_session_id",
    "_username",
    "_auth_complete",
    "_auth_final",
    "_client_kexinit",
    "_client_version",
    "_ignore_first_kex",
    "_server_kexinit",
    "_enc_alg_cs",
    "_enc_alg_sc",
    "_enc_algs",
    "_extensions_to_send",
    "_inpbuf",
    "_kexinit_sent",
    "_keepalive_interval",
    "_keepalive_timer",
    "_kex",
    "_recv_handler",
    "_recv_seq",
    "_recv_encryption",
    "_next_recv_encryption",
    "_decompressor",
    "_send_seq",
    "_send_encryption",
    "_compressor",
    "_rekey_bytes",
    "_rekey_bytes_sent",
    "_rekey_seconds",
    "_rekey_time",
    "_peer_addr",
    "_peer_port",
]


def test_the_pinned_version_is_installed() -> None:
    assert asyncssh.__version__ == "2.24.1"


@pytest.mark.parametrize(
    ("owner", "name", "parameters"), CALLED_OR_REPLACED, ids=[one[1] for one in CALLED_OR_REPLACED]
)
def test_a_method_is_as_we_know_it(owner: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_set_by_the_constructor(name: str) -> None:
    assert f"self.{name}" in inspect.getsource(SSHConnection.__init__)


def test_messages_are_dispatched_through_the_class_table() -> None:
    assert SSHConnection._packet_handlers[90] is SSHConnection._process_channel_open
    assert SSHConnection._packet_handlers[20] is SSHConnection._process_kexinit
    assert SSHConnection._packet_handlers[80] is SSHConnection._process_global_request
    assert not {192, 193} & set(SSHConnection._packet_handlers)
    assert "_packet_handlers" not in vars(SSHServerConnection)
    assert "_packet_handlers" not in vars(SSHClientConnection)
    assert "self._packet_handlers[pkttype](self, pkttype," in inspect.getsource(SSHPacketHandler.process_packet)


def test_a_channel_is_called_by_these_names_only() -> None:
    text = inspect.getsource(SSHConnection)
    assert "chan.process_open_confirmation(send_chan, send_window," in text
    assert "chan.process_open_failure(code, reason, lang)" in text
    assert "chan.process_connection_close(exc)" in text
    assert "handler = self._channels[recv_chan]" in text


def test_public_key_success_has_one_way_out() -> None:
    text = inspect.getsource(asyncssh.auth._ServerPublicKeyAuth._start)
    assert "self._conn.validate_public_key(self._username, key_data," in text
    assert "await self.send_success()" in text
    assert "msg = packet.get_consumed_payload()" in text
    assert "await self._conn.send_userauth_success()" in inspect.getsource(asyncssh.auth.ServerAuth.send_success)


def test_keyboard_interactive_succeeds_by_our_word_only() -> None:
    """A true challenge that is no tuple is success there: ours are tuples, or False, or True behind a verdict."""
    handler = asyncssh.auth._ServerKbdIntAuth
    assert "await self._conn.get_kbdint_challenge(self._username," in inspect.getsource(handler._start)
    assert "await self._conn.validate_kbdint_response(self._username, responses)" in inspect.getsource(
        handler._validate_response
    )
    text = inspect.getsource(handler._send_challenge)
    assert "if isinstance(challenge, (tuple, list)):" in text
    assert text.count("await self.send_success()") == 1
    assert (
        "elif challenge:\n            await self.send_success()\n        else:\n            self.send_failure()" in text
    )
    assert "return conn.kbdint_auth_supported()" in inspect.getsource(handler.supported)
    assert "self.cancel()" in inspect.getsource(asyncssh.auth.Auth.create_task)  # a second answer ends the first


def test_only_the_room_imports_what_is_not_public() -> None:
    """Other modules may use asyncssh's documented names and its key parser, and no private attribute of it."""
    for path in Path("bastion").rglob("*.py"):
        if path.name in ROOM:
            continue
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asyncssh."):
                assert (path.name, node.module) == ("proof.py", "asyncssh.public_key"), path


def test_every_private_name_in_the_room_is_listed() -> None:
    listed = {name for _, name, _ in CALLED_OR_REPLACED} | set(ATTRIBUTES) | {"_packet_handlers"}
    theirs = {name for owner in (SSHServerConnection, SSHClientConnection) for name in dir(owner)}
    theirs |= set(ATTRIBUTES)
    for module in ROOM:
        for node in ast.walk(ast.parse((Path("bastion/relay") / module).read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                assert node.attr not in theirs or node.attr in listed, (module, node.attr)
