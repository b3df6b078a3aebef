"""Why: the relay's own authentication replaces asyncssh's, so it meets real clients and the known traps here."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from bastion.relay import wire_options
from bastion.relay.limits import RelayLimits
from bastion.relay.wire import see_host_key
from tests.bastion.relay.doors import Door, Way, connect
from tests.support.sshd import Sshd


def key_file(folder: Path, name: str, key: asyncssh.SSHKey | None = None) -> tuple[Path, asyncssh.SSHKey]:
    made = key or asyncssh.generate_private_key("ssh-ed25519")
    path = folder / name
    path.touch(mode=0o600)
    path.write_bytes(made.export_private_key())
    return path, made


async def test_a_stranger_is_refused_and_learns_nothing(door: Door, tmp_path: Path) -> None:
    path, key = key_file(tmp_path, "stranger")
    way = replace(Way.through(door), identity=path)
    answer = await way.run("-o", "LogLevel=INFO", "--", "true")
    assert (answer.status, answer.err) == (255, b"alice@127.0.0.1: Permission denied (publickey).\r\n")
    assert door.fronts[0].offered == [("alice", key.public_data)]
    assert not door.fronts[0].proven


async def test_other_methods_are_not_offered(door: Door) -> None:
    answer = await Way.through(door).run("-o", "PreferredAuthentications=password,keyboard-interactive,hostbased")
    assert answer.status == 255
    assert b"Permission denied (publickey)" in answer.err


async def test_a_useless_key_says_why_and_the_next_one_gets_in(door: Door, tmp_path: Path) -> None:
    path, key = key_file(tmp_path, "useless")
    door.useless = {key.public_data: "Your server alice/ has been restarted: fetch a new certificate."}
    answer = await Way.through(door).run("-o", "LogLevel=INFO", "-i", str(path), "--", "echo in")
    assert (answer.status, answer.out) == (0, b"in\n")
    assert b"jupyterhub-bastion: Your server alice/ has been restarted: fetch a new certificate." in answer.err
    front = door.fronts[0]
    assert front.proven == [("alice", key.public_data), ("alice", door.sshd.user_key.public_data)]
    assert front.inside == [("alice", door.sshd.user_key.public_data)]


async def test_a_certificate_reaches_the_front_as_it_is_whatever_stands_in_it(door: Door, tmp_path: Path) -> None:
    path, key = key_file(tmp_path, "certified")
    ca = asyncssh.generate_private_key("ssh-ed25519")
    certificate = ca.generate_user_certificate(key, "x", principals=["y"], valid_after="-1m", valid_before="+1m")
    (tmp_path / "certified-cert.pub").write_bytes(certificate.export_certificate())
    door.welcome = {certificate.public_data}
    answer = await replace(Way.through(door), identity=path).run("--", "echo in")
    assert answer.out == b"in\n"
    assert door.fronts[0].inside == [("alice", certificate.public_data)]


async def test_a_welcome_key_does_not_open_another_login(door: Door) -> None:
    answer = await Way.through(door, login="bob").run("--", "true")
    assert answer.status == 255
    assert door.fronts[0].proven == [("bob", door.sshd.user_key.public_data)]
    assert not door.fronts[0].inside


async def test_signed_attempts_are_counted(door: Door) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(8)]
    door.useless = {key.public_data: None for key in keys}
    with pytest.raises(asyncssh.DisconnectError, match="Too many authentication failures"):
        await connect(door, client_keys=keys)
    assert len(door.fronts[0].proven) == RelayLimits().signed_attempts


async def test_offered_keys_are_counted(door: Door) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(60)]
    with pytest.raises(asyncssh.DisconnectError, match="Too many authentication failures"):
        await connect(door, client_keys=keys)
    assert len(door.fronts[0].offered) == RelayLimits().probes
    assert not door.fronts[0].proven


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
async def test_every_kind_of_key_gets_in(door: Door, tmp_path: Path, kind: str) -> None:
    more = {"key_size": 3072} if kind == "ssh-rsa" else {}
    path, key = key_file(tmp_path, "key", asyncssh.generate_private_key(kind, **more))
    door.welcome = {key.public_data}
    answer = await replace(Way.through(door), identity=path).run("--", "echo in")
    assert answer.out == b"in\n"


async def test_only_strong_algorithms_are_agreed_on(door: Door) -> None:
    async with connect(door, encryption_algs="chacha20-poly1305@openssh.com,aes256-gcm@openssh.com") as conn:
        assert conn.get_extra_info("send_cipher") == "aes256-gcm@openssh.com"
    weak_mac = {"mac_algs": ["hmac-sha1"], "encryption_algs": ["aes128-ctr"]}
    for weak in (weak_mac, {"kex_algs": ["diffie-hellman-group14-sha1"]}):
        with pytest.raises(asyncssh.KeyExchangeFailed):
            await connect(door, **weak)


async def test_a_pod_without_the_right_host_certificate_gets_no_login(sshd: Sshd, door: Door) -> None:
    good = door.trust
    stranger = asyncssh.generate_private_key("ssh-ed25519").public_data
    for wrong in (
        replace(good, name="other.hub"),
        replace(good, authorities=frozenset({stranger})),
        replace(good, key=stranger),
        replace(good, authorities=frozenset(), bare=True, key=stranger),
    ):
        door.trust = wrong
        answer = await Way.through(door).run("-o", "LogLevel=INFO", "--", "true")
        assert answer.status == 255
        assert b"wrong_host_key" in answer.err
    door.trust = good
    assert (await Way.through(door).run("--", "true")).status == 0


@pytest.mark.parametrize(
    ("principals", "valid_before"),
    [([], "+10m"), (["*"], "+10m"), (["pod.hub"], "-1m")],
    ids=["no principals", "wildcard", "expired"],
)
async def test_a_host_certificate_that_is_too_wide_or_too_old_is_refused(
    tmp_path: Path, principals: list[str], valid_before: str
) -> None:
    with Sshd.running(tmp_path / "sshd") as own:
        certificate = own.host_certificate(principals, valid_before)
        (own.directory / "host-cert.pub").write_bytes(certificate.export_certificate())
        own.stop()
        own.start(write_keys=False)
        async with Door(own, tmp_path / "door").serving() as door:
            answer = await Way.through(door).run("-o", "LogLevel=INFO", "--", "true")
            assert answer.status == 255
            assert b"wrong_host_key" in answer.err


async def test_a_bare_host_key_is_taken_only_where_it_is_trusted_as_such(tmp_path: Path) -> None:
    with Sshd.running(tmp_path / "sshd") as own:
        async with Door(own, tmp_path / "door").serving() as door:
            door.algorithms = replace(door.algorithms, host_keys=("ssh-ed25519",))
            assert (await Way.through(door).run("--", "true")).status == 255
            door.trust = replace(door.trust, bare=True)
            assert (await Way.through(door).run("--", "true")).status == 0


async def test_a_pod_that_does_not_take_the_hop_certificate_is_told_apart(door: Door, sshd: Sshd) -> None:
    real, sshd.user_ca = sshd.user_ca, asyncssh.generate_private_key("ssh-ed25519")
    try:
        answer = await Way.through(door).run("-o", "LogLevel=INFO", "--", "true")
    finally:
        sshd.user_ca = real
    assert b"login_refused" in answer.err


async def test_a_pod_that_talks_nonsense_is_told_apart(door: Door) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n" * 3000)
        writer.close()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    door.pod_port = server.sockets[0].getsockname()[1]
    async with server:
        answer = await Way.through(door).run("-o", "LogLevel=INFO", "--", "true")
    assert b"protocol" in answer.err


async def test_a_process_whose_user_has_no_name_reaches_pods(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that what is set instead goes with the test
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    wire_options._of_every_pod.cache_clear()
    answer = await Way.through(door).run("--", "echo here")
    assert answer.out == b"here\n"
    assert await see_host_key("127.0.0.1", door.sshd.port, "ssh-ed25519", door.algorithms) is not None
