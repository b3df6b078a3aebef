"""Why: whoever gets a hop certificate is inside a pod, so the api believes neither the bastion nor the network."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.compose import internal_secret
from api.secret import open_secret
from api.settings import read_settings
from ca.certificate import blob_of, line_of
from ca.errors import KeyFileError
from ca.keys import parse_public_key
from ca.limits import Capability, capabilities_in
from ca.names import Instance, parse_principal
from ca.policy import Grant
from ca.revocation import make_serial
from ca.signer import FileSigner
from tests.support.hub import Hub
from tests.support.ports import Ports, new_key, open_ports
from tests.support.ssh_keygen import fingerprint, show

RAW = fingerprint(new_key())


@pytest.mark.parametrize("secret", [None, "", "wrong", "ünï", "x" * 100_000])
async def test_nobody_without_the_secret_learns_anything(lone: Ports, secret: str | None) -> None:
    for method, path in (
        ("GET", "/internal/state"),
        ("POST", "/internal/hop-certificates"),
        ("POST", "/internal/host-certificates"),
    ):
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}".encode()}
        answer = await lone.internal(method, path, secret=None, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token"), path
    assert lone.events("request_refused")[0]["route"] == "/internal/state"


async def test_the_public_port_knows_no_internal_address(lone: Ports) -> None:
    for path in ("/internal/state", "/metrics"):
        assert (await lone.public("GET", path, lone.secret)).status_code == 404


async def test_the_metrics_need_no_secret_and_name_nobody(lone: Ports) -> None:
    await lone.internal("GET", "/internal/state", secret="wrong")
    answer = await lone.internal("GET", "/metrics", secret=None)
    assert answer.status_code == 200
    assert 'bastion_api_events_total{event="request_refused",reason="invalid_token"} 1.0' in answer.text
    assert "bastion_api_hub_heard_seconds_ago +Inf" in answer.text


def test_the_secret_is_made_once_and_refused_when_others_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "internal-secret"
    secret = open_secret(path, None)
    assert len(secret) >= 32
    assert open_secret(path, None) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        open_secret(path, None)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(KeyFileError, match="too short"):
        open_secret(path, None)


def test_the_secret_file_may_be_somewhere_else(tmp_path: Path) -> None:
    given = {"SSH_API_HUB_TOKEN": "x", "SSH_API_INTERNAL_SECRET_FILE": str(tmp_path / "shared")}
    settings = read_settings({**given, "SSH_API_STATE_DIRECTORY": str(tmp_path / "state")})
    assert internal_secret(settings) == (tmp_path / "shared").read_bytes().strip()


async def test_the_bastion_gets_a_host_certificate_for_the_names_of_the_settings(tmp_path: Path) -> None:
    async with open_ports(None, tmp_path / "state", BASTION_HOSTS="ssh.example.org,192.0.2.7") as ports:
        key = new_key()
        answer = await ports.internal("POST", "/internal/host-certificates", json={"public_key": key})
        assert answer.status_code == 200, answer.text
        shown = show(answer.json()["certificate"])
        assert (shown.kind, shown.principals) == ("host", ("ssh.example.org", "192.0.2.7"))
        assert (shown.fingerprint, shown.valid_before) == (fingerprint(key), answer.json()["valid_before"])
        for body in ({"public_key": "x"}, {"public_key": key, "names": ["alice.hub"]}, {}, []):
            answer = await ports.internal("POST", "/internal/host-certificates", json=body)
            assert answer.status_code == 400


class Enrolled:
    """alice/gpu, enrolled and running, and a certificate for it."""

    def __init__(self, ports: Ports, pod: dict[str, str]) -> None:
        self.ports = ports
        self.instance = parse_principal(pod["principal"])
        self.user_key = parse_public_key(new_key())
        self.grant = Grant(
            user="alice",
            key=self.user_key,
            serial=make_serial(ports.services.now_ms(), 1),
            instances=(self.instance,),
            capabilities=frozenset({Capability.PTY, Capability.EXEC}),
            valid_after=int(ports.clock.now) - 60,
            valid_before=int(ports.clock.now) + 120,
            source_address=None,
            as_admin=False,
        )

    def certificate(self, signer: FileSigner | None = None, **changes: object) -> str:
        grant = replace(self.grant, **changes)  # type: ignore[arg-type]
        return (signer or self.ports.services.signer).sign_user(grant).line

    def body(self, **changes: object) -> dict[str, object]:
        return {
            "login": "alice+gpu",
            "instance": str(self.instance.id),
            "public_key": new_key(),
            "certificate": self.certificate(),
            **changes,
        }

    async def ask(self, **changes: object) -> tuple[int, dict[str, object]]:
        answer = await self.ports.internal("POST", "/internal/hop-certificates", json=self.body(**changes))
        return answer.status_code, answer.json()

    async def refused(self, status: int, error: str, **changes: object) -> None:
        got, said = await self.ask(**changes)
        assert (got, said["error"]) == (status, error), said
        assert [line["reason"] for line in self.ports.events("hop_refused")] == [error]
        assert self.ports.events("hop_issued") == []


@pytest.fixture
async def pod(hub: Hub, ports: Ports) -> Enrolled:
    await hub.start_server("alice", "gpu")
    answer = await ports.enrol(await hub.server_token("alice", "gpu"))
    return Enrolled(ports, answer.json())


async def test_a_hop_certificate_is_no_wider_and_no_longer_than_the_users_own(pod: Enrolled) -> None:
    key = new_key()
    status, said = await pod.ask(public_key=key)
    assert status == 200, said
    shown = show(str(said["certificate"]))
    assert (shown.kind, shown.key_id, shown.principals) == ("user", "alice", (pod.instance.principal,))
    assert (shown.fingerprint, shown.critical) == (fingerprint(key), ())
    assert shown.extensions == show(pod.certificate()).extensions
    assert shown.valid_before == said["valid_before"] == pod.grant.valid_before
    assert shown.ca_fingerprint == pod.ports.services.signer.public.hop[0].fingerprint
    (line,) = pod.ports.events("hop_issued")
    assert (line["identity"], line["for_serial"]) == ("alice", str(pod.grant.serial))


async def test_a_hop_certificate_ends_after_five_minutes(pod: Enrolled) -> None:
    _, said = await pod.ask(certificate=pod.certificate(valid_before=int(pod.ports.clock.now) + 36000))
    assert said["valid_before"] == int(pod.ports.clock.now) + 300


async def test_a_raw_key_gets_one_that_is_named_after_the_key(pod: Enrolled) -> None:
    status, said = await pod.ask(certificate=None, raw_key=RAW)
    assert status == 200, said
    assert show(str(said["certificate"])).key_id == f"key:{RAW}"


async def test_raw_keys_can_be_switched_off(hub: Hub, tmp_path: Path) -> None:
    await hub.start_server("alice", "gpu")
    async with open_ports(hub, tmp_path / "other", CERTIFICATES_RAW_KEYS="false") as ports:
        enrolled = Enrolled(ports, (await ports.enrol(await hub.server_token("alice", "gpu"))).json())
        await enrolled.refused(403, "not_permitted", certificate=None, raw_key=RAW)


async def test_the_state_is_told_from_a_database_that_knows_as_much_as_the_bastion_was_told(lone: Ports) -> None:
    async def state(**query: object) -> dict[str, Any]:
        answer = await lone.internal("GET", "/internal/state", params=query)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    first = await state()
    assert await state(mark=first["mark"]) == first | {"heard_seconds_ago": None}
    lone.clock.advance(60)
    after = await state(mark=first["mark"] + 5, version=first["version"], wait=0)
    assert after["mark"] > first["mark"] + 5
    assert after["epoch"] != first["epoch"]
    assert after["revocations"]["everyone_before"] == lone.services.now_ms()
    for nonsense in ("-1", str(1 << 61), "x"):
        assert (await lone.internal("GET", f"/internal/state?mark={nonsense}")).status_code == 400


async def test_a_raw_key_may_do_no_more_than_the_owner_of_the_server(hub: Hub, tmp_path: Path) -> None:
    await hub.start_server("alice", "gpu")
    rules = '{"narrow": {"deny": ["exec", "x11"]}, "none": {"deny": ["pty", "exec", "x11", "agent"]}}'
    given = {
        "CERTIFICATES_GROUPS": rules,
        "CERTIFICATES_CAPABILITIES": "pty,exec,x11,agent",
        "CERTIFICATES_RAW_KEY_CAPABILITIES": "pty,exec,subsystem",
    }
    async with open_ports(hub, tmp_path / "other", **given) as ports:
        enrolled = Enrolled(ports, (await ports.enrol(await hub.server_token("alice", "gpu"))).json())

        async def told() -> dict[str, object]:
            await ports.services.roster.ask_hub()
            raw_keys: dict[str, object] = (await ports.internal("GET", "/internal/state")).json()["raw_keys"]
            return raw_keys

        before = (await ports.internal("GET", "/internal/state")).json()["raw_keys"]
        assert (before["capabilities"], before["owners"]) == ([], {})
        try:
            for groups, extensions in ((["other"], ["exec", "pty"]), (["narrow"], ["pty"])):
                await hub.set_groups("alice", groups)
                raw_keys = await told()
                assert raw_keys["capabilities"] == ["exec", "pty"]
                assert raw_keys["owners"] == ({} if groups == ["other"] else {"alice": extensions})
                status, said = await enrolled.ask(certificate=None, raw_key=RAW)
                assert status == 200, said
                assert sorted(capabilities_in(show(str(said["certificate"])).extensions)) == extensions
            await hub.set_groups("alice", ["none"])
            assert (await told())["owners"] == {"alice": []}
            status, said = await enrolled.ask(certificate=None, raw_key=RAW)
            assert (status, said["error"]) == (403, "nothing_granted")
        finally:
            await hub.set_groups("alice", [])


async def test_an_expired_certificate_gets_nothing(pod: Enrolled) -> None:
    certificate = pod.certificate()
    pod.ports.clock.advance(120)
    await pod.refused(403, "expired", certificate=certificate)


async def test_a_certificate_that_is_not_yet_valid_gets_nothing(pod: Enrolled) -> None:
    await pod.refused(403, "not_yet_valid", certificate=pod.certificate(valid_after=int(pod.ports.clock.now) + 5))


async def test_a_certificate_of_another_ca_gets_nothing(pod: Enrolled, tmp_path: Path) -> None:
    other = FileSigner(tmp_path / "other", None)
    await pod.refused(401, "unknown_credential", certificate=pod.certificate(other))


async def test_a_hop_certificate_gets_no_further_one(pod: Enrolled) -> None:
    _, said = await pod.ask()
    pod.ports.audit.truncate(pod.ports.audit.seek(0))
    await pod.refused(401, "unknown_credential", certificate=said["certificate"])


async def test_a_certificate_that_was_changed_gets_nothing(pod: Enrolled) -> None:
    blob = bytearray(blob_of(pod.certificate()))
    blob[-1] ^= 1
    await pod.refused(401, "unknown_credential", certificate=line_of(bytes(blob)))


async def test_a_revoked_serial_user_or_server_gets_nothing(pod: Enrolled) -> None:
    services = pod.ports.services
    certificate = pod.certificate()
    await services.store.revoke_serial(pod.grant.serial, "alice", "lost", services.now_ms())
    await pod.refused(403, "revoked", certificate=certificate)


async def test_a_certificate_from_before_a_lost_database_gets_nothing(pod: Enrolled, tmp_path: Path) -> None:
    certificate = pod.certificate()
    (tmp_path / "state" / "api.sqlite").unlink()
    pod.ports.clock.advance(1)
    await pod.ports.services.roster.read_store()
    await pod.refused(403, "revoked", certificate=certificate)


async def test_a_certificate_for_another_server_gets_nothing(pod: Enrolled) -> None:
    other = Instance(replace(pod.instance.server, owner="bob"), 5)
    await pod.refused(403, "not_named", certificate=pod.certificate(instances=(other,)))


async def test_a_certificate_for_the_run_before_gets_nothing(pod: Enrolled) -> None:
    before = Instance(pod.instance.server, pod.instance.id - 1)
    await pod.refused(
        403, "server_restarted", certificate=pod.certificate(instances=(before,)), instance=str(before.id)
    )


async def test_a_stopped_server_is_not_entered(hub: Hub, pod: Enrolled) -> None:
    await hub.stop_server("alice", "gpu")
    await pod.ports.services.roster.ask_hub()
    await pod.refused(403, "server_stopped")


async def test_a_certificate_bound_to_an_address_needs_that_address(pod: Enrolled) -> None:
    bound = pod.certificate(source_address="192.0.2.7")
    assert (await pod.ask(certificate=bound, peer="192.0.2.7"))[0] == 200
    assert (await pod.ask(certificate=bound, peer="192.0.2.8"))[1]["error"] == "source_address"
    assert (await pod.ask(certificate=bound))[1]["error"] == "source_address"


async def test_a_server_that_did_not_enrol_is_asked_for_at_jupyterhub(hub: Hub, pod: Enrolled) -> None:
    await pod.ports.services.store.end_enrolments([pod.instance], "withdrawn", pod.ports.services.now_ms())
    assert pod.ports.services.roster.listed == ()
    assert (await pod.ask())[0] == 200


async def test_a_listed_server_needs_no_jupyterhub(own_hub: Hub, tmp_path: Path) -> None:
    async with open_ports(own_hub, tmp_path / "state", HUB_TIMEOUT="5") as ports:
        await own_hub.start_server("alice", "gpu")
        enrolled = Enrolled(ports, (await ports.enrol(await own_hub.server_token("alice", "gpu"))).json())
        own_hub.kill()
        assert (await enrolled.ask())[0] == 200
        other = Instance(enrolled.instance.server, enrolled.instance.id + 1)
        status, said = await enrolled.ask(instance=str(other.id), certificate=enrolled.certificate(instances=(other,)))
        assert (status, said["error"]) == (503, "hub_unavailable")


@pytest.mark.parametrize(
    "change",
    [
        {"certificate": None},
        {"raw_key": RAW},
        {"certificate": "ssh-ed25519 AAAA"},
        {"certificate": "x" * 200_000},
        {"certificate": None, "raw_key": "SHA256:short"},
        {"certificate": None, "raw_key": "root"},
        {"login": "Alice"},
        {"login": "alice+"},
        {"login": ""},
        {"login": "alice/gpu"},
        {"login": "alice\n"},
        {"instance": "0"},
        {"instance": "-1"},
        {"instance": "1e9"},
        {"instance": "99999999999999999999"},
        {"instance": 5},
        {"public_key": ""},
        {"public_key": "ssh-ed25519 AAAA"},
        {"capabilities": ["pty"]},
    ],
)
async def test_bad_fields_get_a_sentence(pod: Enrolled, change: dict[str, object]) -> None:
    status, said = await pod.ask(**change)
    assert status == 400, said
    assert set(said) == {"error", "error_description"}
    assert pod.ports.events("hop_issued") == []


async def test_many_polls_wait_at_once(lone: Ports) -> None:
    version = (await lone.internal("GET", "/internal/state")).json()["version"]
    query = {"version": version, "wait": 60}
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        polls = [tasks.create_task(lone.internal("GET", "/internal/state", params=query)) for _ in range(50)]
        await asyncio.sleep(0)
        await lone.services.store.revoke_user("bob", "admin", "left", lone.services.now_ms())
        await lone.services.roster.publish()
    assert {poll.result().json()["version"] for poll in polls} != {version}


@pytest.mark.parametrize("query", ["wait=-1", "wait=61", "wait=x", "wait=nan", "wait=inf", f"version={'x' * 200}"])
async def test_bad_queries_get_a_sentence(lone: Ports, query: str) -> None:
    answer = await lone.internal("GET", f"/internal/state?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
