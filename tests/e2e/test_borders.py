"""Why: bob must get nothing of alice's, and no certificate but a genuine, living one may open anything."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import asyncssh
import pytest

from ca.certificate import Certificate, Kind, encode_unsigned, line_of, string
from ca.keyfiles import open_authority
from ca.keys import parse_public_key
from ca.limits import ALL, extensions_for
from ca.names import Instance, Server, instance_id
from ca.revocation import make_serial
from tests.support.system import Person, System

Forge = Callable[..., None]


@pytest.fixture
async def alice(system: System) -> Person:
    if await system.hub.server("alice") is None:
        await system.start_server("alice")
    folder = system.folder / "person-alice"
    return Person(system, "alice", folder) if folder.exists() else system.person("alice")


@pytest.fixture
async def bob(system: System) -> Person:
    if await system.hub.server("bob") is None:
        await system.start_server("bob")
    folder = system.folder / "person-bob"
    person = Person(system, "bob", folder) if folder.exists() else system.person("bob")
    await person.certificate()
    return person


async def test_bobs_certificate_opens_nothing_of_alices(system: System, alice: Person, bob: Person) -> None:
    assert bob.ssh("bob", "echo mine").stdout == b"mine\n"
    for login in ("alice", "Alice", "alice+", "+alice", "alice/", "root", "../alice", "alice\u00a0", "al=69ce"):
        refused = bob.run("ssh", "-l", login, "127.0.0.1", "echo in")
        assert refused.returncode == 255, login
        assert refused.stdout == b""
    for host in ("alice.hub", "ALICE.hub", "alice.hub.", "127.0.0.1", "localhost", "al=69ce.hub", "bob.hub.hub"):
        refused = bob.jump(host, "echo in")
        assert refused.returncode == 255, host
        assert refused.stdout == b""


async def test_what_is_not_his_and_what_does_not_exist_look_the_same_to_bob(
    system: System, alice: Person, bob: Person
) -> None:
    said = {bob.ssh(login, "true").stderr.replace(login.encode(), b"X") for login in ("alice", "nobody-at-all")}
    assert len(said) == 1
    said = {
        bob.jump(f"{login}.hub", "true").stderr.replace(login.encode(), b"X") for login in ("alice", "nobody-at-all")
    }
    assert len(said) == 1


async def test_a_stranger_learns_nothing(system: System, alice: Person) -> None:
    stranger = system.person("stranger")
    answers = {stranger.ssh(login, "true").stderr.replace(login.encode(), b"X") for login in ("alice", "nobody")}
    assert len(answers) == 1
    assert b"Permission denied (publickey,keyboard-interactive)" in answers.pop()
    # Its name is in the documentation; whoever types it is told nothing of anybody's server either.
    assert b"Permission denied (publickey)" in stranger.ssh("jump", "true").stderr


async def test_a_server_shared_for_the_web_gives_bob_no_way_in(system: System, alice: Person, bob: Person) -> None:
    await system.hub.share("alice", "", "bob", scopes=["access:servers"])
    token = await system.hub.token("bob", ["access:servers!server=alice/"])
    refused = await bob.ask(token)
    assert refused.status_code == 403
    import httpx

    host_key = (system.bastion_state / "ssh_host_ed25519_key").exists()
    assert host_key
    body = {"host_key": bob.public_key, "ssh_port": 22222, "key_port": 22223, "unix_user": "bob"}
    answer = httpx.post(
        f"{system.url}/enrolments", json=body, headers={"Authorization": f"token {token}"}, trust_env=False
    )
    assert answer.status_code == 403
    assert system.audit("api", "enrolment_refused")
    issued = await bob.certificate()
    assert all(name.startswith("bob/") for name in issued["principals"])


async def test_bob_cannot_pass_off_alices_sshd_as_his_own(system: System, alice: Person, bob: Person) -> None:
    """He enrols a server of his with the address and port of hers: the bastion looks before it leads anybody there."""
    import httpx

    secret = (system.state / "internal-secret").read_text().strip()
    state = httpx.get(
        f"http://127.0.0.1:{system.internal_port}/internal/state",
        headers={"Authorization": f"Bearer {secret}"},
        trust_env=False,
    ).json()
    hers = next(one for one in state["enrolled"] if one["login"] == "alice")
    await system.hub.start_server("bob", "trap", ssh=False)
    token = await system.hub.server_token("bob", "trap")
    own_key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    answer = httpx.post(
        f"{system.url}/enrolments",
        json={
            "host_key": own_key,
            "ssh_port": hers["ssh_port"],
            "key_port": hers["key_port"],
            "unix_user": hers["unix_user"],
        },
        headers={"Authorization": f"token {token}"},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    await system.listed("bob", "trap")
    await bob.certificate()
    jumped = bob.jump("bob+trap.hub", "echo in")
    assert jumped.returncode == 255
    assert b"not the server that enrolled" in jumped.stderr
    direct = bob.ssh("bob+trap", "echo in")
    assert direct.returncode != 0
    assert b"not the server that enrolled" in direct.stderr
    await system.hub.stop_server("bob", "trap")


@pytest.fixture
async def forge(system: System, alice: Person) -> Forge:
    """Write a certificate of our own making beside alice's key, signed by the real user CA unless told otherwise."""
    server = await system.hub.server("alice")
    assert server is not None
    instance = Instance(Server("alice"), instance_id(server["started"]))
    authority = open_authority(system.state / "keys", "user", None)

    def write(**changed: object) -> None:
        signing = changed.pop("signing", authority.signing)
        assert isinstance(signing, asyncssh.SSHKey)
        now = int(time.time())
        fields: dict[str, object] = {
            "kind": Kind.USER,
            "key_blob": parse_public_key(alice.public_key).blob,
            "serial": make_serial(now * 1000, 7),
            "key_id": "alice",
            "principals": (instance.principal,),
            "valid_after": now - 60,
            "valid_before": now + 600,
            "critical": (),
            "extensions": tuple((name, b"") for name in extensions_for(ALL)),
            "ca_blob": signing.public_data,
            "nonce": os.urandom(32),
        }
        unsigned = encode_unsigned(Certificate(**{**fields, **changed}))  # type: ignore[arg-type]
        blob = unsigned + string(signing.sign(unsigned, b"ssh-ed25519"))
        alice.certificate_file.write_text(line_of(blob) + "\n")

    return write


async def test_a_certificate_made_by_hand_with_the_real_key_opens_the_door_so_that_the_next_test_means_something(
    alice: Person, forge: Forge
) -> None:
    forge()
    assert alice.ssh("alice", "echo in").stdout == b"in\n"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"valid_before": int(time.time()) - 5}, "expired"),
        ({"valid_after": int(time.time()) + 3600, "valid_before": int(time.time()) + 7200}, "not_yet_valid"),
        ({"principals": ("alice/gone:1763000000000000",)}, "server_stopped"),
        ({"principals": ("alice/:1763000000000000",)}, "server_restarted"),
        ({"principals": ()}, "no_principals"),
        ({"principals": ("alice",)}, "bad_principal"),
        ({"critical": (("verify-required", b""),)}, "unknown_critical_option"),
        ({"critical": (("source-address", string(b"192.0.2.1/32")),)}, "source_address"),
        ({"signing": asyncssh.generate_private_key("ssh-ed25519")}, "unknown_ca"),
    ],
)
async def test_each_certificate_that_is_not_right_is_refused_with_one_audit_line(
    system: System, alice: Person, forge: Forge, changed: dict[str, object], reason: str
) -> None:
    forge(**changed)
    login = "alice+gone" if reason == "server_stopped" else "alice"
    before = len(system.audit("bastion", "connection_refused"))
    refused = alice.ssh(login, "echo in")
    assert refused.returncode == 255
    assert refused.stdout == b""
    system.wait("an audit line", lambda: len(system.audit("bastion", "connection_refused")) > before)
    lines = system.audit("bastion", "connection_refused")[before:]
    assert [line["reason"] for line in lines] == [reason]


async def test_after_a_certificate_has_ended_nothing_new_is_opened_and_what_runs_goes_on(
    system: System, alice: Person, forge: Forge
) -> None:
    """Neither by the client, nor by listening for more, nor by the pod for a forward that was asked for in time."""
    end = int(time.time()) + 15
    forge(valid_before=end)
    pair = asyncssh.load_keypairs([(str(alice.folder / "id"), str(alice.certificate_file))])
    forwarded = asyncio.Event()

    def arrived(_host: str, _port: int) -> Callable[..., None]:
        def serve(_reader: object, writer: asyncssh.SSHWriter) -> None:  # type: ignore[type-arg]
            forwarded.set()
            writer.close()

        return serve

    connecting = asyncssh.connect(
        "127.0.0.1", system.port, username="alice", client_keys=pair, known_hosts=None, config=None, agent_path=None
    )
    async with connecting as ssh, ssh.create_process("cat") as running:
        listening = await ssh.start_server(arrived, "127.0.0.1", 0)
        await ended_by_pod(listening.get_port())
        assert forwarded.is_set()
        forwarded.clear()
        system.wait("the certificate to end", lambda: time.time() > end)
        with pytest.raises(asyncssh.ChannelOpenError, match="expired"):
            await ssh.run("true")
        with pytest.raises(asyncssh.ChannelListenError):
            await ssh.start_server(arrived, "127.0.0.1", 0)
        await ended_by_pod(listening.get_port())
        assert not forwarded.is_set()
        running.stdin.write("still here\n")
        assert await running.stdout.readline() == "still here\n"


async def ended_by_pod(port: int) -> None:
    """Connect to what a pod's sshd forwards, and wait until that connection has ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_jump_login_is_no_shell(bob: Person) -> None:
    refused = bob.ssh("jump", "true")
    assert refused.returncode == 255
    assert b"only carries connections" in refused.stderr


async def test_a_host_certificate_is_no_way_in(system: System, alice: Person, forge: Forge) -> None:
    """OpenSSH's client would not even show it, so another client does."""
    forge(kind=Kind.HOST)
    before = len(system.audit("bastion", "connection_refused"))
    pair = asyncssh.load_keypairs([(str(alice.folder / "id"), str(alice.certificate_file))])
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1", system.port, username="alice", client_keys=pair, known_hosts=None, config=None, agent_path=None
        )
    lines = system.audit("bastion", "connection_refused")[before:]
    assert [line["reason"] for line in lines] == ["wrong_certificate_type"]


async def test_secrets_do_not_reach_the_logs(system: System, alice: Person) -> None:
    assert alice.user == "alice"
    secret = (system.state / "internal-secret").read_text().strip()
    for name in ("api.log", "api.audit", "bastion.log", "bastion.audit"):
        text = (system.folder / name).read_text(errors="replace")
        assert secret not in text
        assert system.hub.service_token not in text
        assert "PRIVATE KEY" not in text
