"""Why: what OpenSSH reads here must be what the bastions are told, at once, in every replica, after every mishap."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from api import krl
from api.krl import AGE_SECONDS, APART_SECONDS, RECORD_SECONDS, KrlDesk
from api.store import CertificateRecord, Store
from ca.keyfiles import rotate
from ca.keys import parse_public_key
from ca.krl import revoked_serials
from ca.limits import ALL
from ca.names import Instance, Server
from ca.policy import Grant
from ca.revocation import make_serial
from ca.signer import FileSigner
from tests.support.ports import Ports, new_key

ALICE, GPU, BOB = (Instance(Server(*names), 5) for names in (("alice",), ("alice", "gpu"), ("bob",)))


class Site:
    """Certificates that one api recorded and signed."""

    def __init__(self, ports: Ports, folder: Path) -> None:
        self.ports = ports
        self.folder = folder
        self.store = ports.services.store
        self.certificates: dict[str, Path] = {}

    async def issue(self, name: str, user: str, *instances: Instance, recorded: bool = True) -> int:
        """Sign a certificate and record it, as the desk does."""
        now = self.ports.clock.now
        serial = make_serial(int(now * 1000), len(self.certificates))
        key = parse_public_key(new_key())
        grant = Grant(user, key, serial, instances, ALL, int(now) - 60, int(now) + 3600, None, as_admin=False)
        if recorded:
            await self.store.record(self.record(grant))
        path = self.certificates[name] = self.folder / f"{name}.pub"
        path.write_text(f"{self.ports.services.signer.sign_user(grant).line}\n")
        return serial

    def record(self, grant: Grant) -> CertificateRecord:
        principals = tuple(one.principal for one in grant.instances)
        fingerprint = grant.key.fingerprint
        at = int(self.ports.clock.now * 1000)
        return CertificateRecord(
            grant.serial, "user", grant.user, fingerprint, principals, grant.valid_after, grant.valid_before, at, "page"
        )

    async def revoked(self, name: str = "krl") -> set[str]:
        """The certificates that OpenSSH refuses by the list of now."""
        answer = await self.ports.public("GET", "/krl")
        assert answer.status_code == 200, answer.text
        (self.folder / name).write_bytes(answer.content)
        found = set()
        for known, path in self.certificates.items():
            done = subprocess.run(
                ["ssh-keygen", "-Q", "-f", self.folder / name, path], capture_output=True, timeout=60, check=False
            )
            assert done.returncode in (0, 1), done
            assert (b"REVOKED" in done.stdout) == (done.returncode == 1), done
            found |= {known} if done.returncode else set()
        return found

    @property
    def now_ms(self) -> int:
        return self.ports.services.now_ms()


@pytest.fixture
async def site(lone: Ports, tmp_path: Path) -> Site:
    return Site(lone, tmp_path)


def count_readings(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """Grows with each reading of the database."""
    reads: list[Store] = []
    reading = Store.reading

    def counted(store: Store) -> object:
        reads.append(store)
        return reading(store)

    monkeypatch.setattr(Store, "reading", counted)
    return reads


async def version_of(site: Site) -> int:
    content = (await site.ports.public("GET", "/krl")).content
    return int.from_bytes(content[12:20], "big")


async def test_a_certificate_a_user_and_a_server_are_in_it_as_soon_as_they_are_revoked(site: Site) -> None:
    site.ports.clock.advance(10)
    serial = await site.issue("one", "alice", ALICE)
    await site.issue("two", "alice", ALICE, GPU)
    await site.issue("three", "alice", GPU)
    await site.issue("shared", "bob", GPU)
    await site.issue("bob", "bob", BOB)
    assert await site.revoked() == set()
    await site.store.revoke_serial(serial, "alice", "", site.now_ms)
    assert await site.revoked() == {"one"}
    await site.store.revoke_server(GPU.server, "alice", "", site.now_ms)
    assert await site.revoked() == {"one", "three", "shared"}
    await site.store.revoke_user("alice", "admin", "", site.now_ms)
    assert await site.revoked() == {"one", "two", "three", "shared"}
    await site.store.revoke_server(ALICE.server, "alice", "", site.now_ms)
    site.ports.clock.advance(1)
    await site.issue("new", "alice", ALICE, GPU)
    assert "new" not in await site.revoked()
    await site.store.revoke_everyone(site.now_ms)
    assert await site.revoked() == set(site.certificates)


async def test_a_certificate_is_in_it_when_every_server_that_it_names_was_taken_from_its_user(site: Site) -> None:
    """One that opens another server still is refused for that one by the bastion alone: a KRL knows no servers."""
    site.ports.clock.advance(10)
    await site.issue("guest", "bob", GPU)
    await site.issue("mixed", "bob", GPU, BOB)
    await site.issue("owner", "alice", GPU)
    await site.store.revoke_share("bob", GPU.server, "shares", "", site.now_ms)
    assert await site.revoked() == {"guest"}
    site.ports.clock.advance(1)
    await site.issue("again", "bob", GPU)
    await site.store.revoke_share("bob", BOB.server, "shares", "", site.now_ms)
    assert await site.revoked() == {"guest", "mixed"}


async def test_a_certificate_that_was_recorded_after_its_users_revocation_is_in_it_a_moment_later(site: Site) -> None:
    """It was decided on before, so the bastions refuse it."""
    site.ports.clock.advance(10)
    await site.issue("first", "alice", ALICE)
    now = site.ports.clock.now
    late = Grant(
        "alice", parse_public_key(new_key()), make_serial(int(now * 1000), 99), (ALICE,), ALL, int(now) - 60,
        int(now) + 3600, None, as_admin=False,
    )  # fmt: skip
    await site.store.revoke_user("alice", "admin", "", site.now_ms)
    assert await site.revoked() == {"first"}
    await site.store.record(site.record(late))
    path = site.certificates["late"] = site.folder / "late.pub"
    path.write_text(f"{site.ports.services.signer.sign_user(late).line}\n")
    await site.store.refresh(site.now_ms)
    site.ports.clock.advance(APART_SECONDS)
    assert await site.revoked() == {"first", "late"}


async def test_a_lost_database_revokes_what_it_no_longer_knows(site: Site, tmp_path: Path) -> None:
    site.ports.clock.advance(10)
    await site.issue("known", "alice", ALICE)
    await site.issue("lost", "alice", ALICE, recorded=False)
    (tmp_path / "state" / "api.sqlite").unlink()
    site.ports.clock.advance(1)
    await site.ports.services.roster.read_store()
    assert await site.revoked() == {"known", "lost"}


async def test_certificates_of_before_a_rotation_stay_revoked(site: Site, tmp_path: Path) -> None:
    site.ports.clock.advance(10)
    serial = await site.issue("before", "alice", ALICE)
    await site.issue("other", "bob", BOB)
    await site.store.revoke_serial(serial, "alice", "", site.now_ms)
    version = await version_of(site)
    rotate(tmp_path / "state" / "keys", "user", None)
    signer = site.ports.services.signer
    assert isinstance(signer, FileSigner)
    signer.reload()
    site.ports.clock.advance(1)
    after = await site.issue("after", "alice", ALICE)
    assert await site.revoked() == {"before"}
    assert await version_of(site) > version
    await site.store.revoke_serial(after, "alice", "", site.now_ms)
    assert await site.revoked() == {"before", "after"}


async def test_its_version_grows_with_every_change_and_its_tag_names_what_it_says(site: Site) -> None:
    site.ports.clock.advance(10)
    seen: list[int] = []
    tags: set[str] = set()
    for number in range(4):
        await site.store.revoke_serial(make_serial(site.now_ms, number), "admin", "", site.now_ms)
        seen.append(await version_of(site))
        answer = await site.ports.public("GET", "/krl")
        tags.add(answer.headers["etag"])
        again = await site.ports.public("GET", "/krl", headers={"If-None-Match": f'"x", {answer.headers["etag"]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])
        assert (await site.ports.public("GET", "/krl", headers={"If-None-Match": '"x"'})).status_code == 200
    assert seen == sorted(set(seen))
    assert len(tags) == 4
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["last-modified"].endswith(" GMT")
    assert answer.headers["cache-control"] == "no-cache"
    epoch = (await site.ports.public("GET", "/enrolments/epoch")).json()
    assert answer.headers["etag"] == f'W/"{epoch["krl"]}"'


async def test_what_changes_nothing_leaves_list_and_tag_alone(site: Site) -> None:
    site.ports.clock.advance(10)
    await site.store.revoke_serial(make_serial(site.now_ms, 5), "admin", "", site.now_ms)
    before = await site.ports.public("GET", "/krl")
    await site.issue("fresh", "alice", ALICE)
    await site.store.refresh(site.now_ms)
    site.ports.clock.advance(AGE_SECONDS)
    after = await site.ports.public("GET", "/krl")
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])


async def test_certificates_are_looked_through_again_only_while_one_may_be_late(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ports.clock.advance(10)
    await site.store.revoke_user("alice", "admin", "", site.now_ms)
    await site.revoked()
    reads = count_readings(monkeypatch)
    for _ in range(RECORD_SECONDS):
        site.ports.clock.advance(APART_SECONDS)
        await site.issue(f"fresh{len(site.certificates)}", "alice", ALICE)
        await site.store.refresh(site.now_ms)
        await site.ports.public("GET", "/krl")
    assert len(reads) == RECORD_SECONDS / APART_SECONDS + 1  # of sixty
    assert await site.revoked() == set()


async def test_a_list_that_became_too_long_is_a_metric_until_it_is_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ports.clock.advance(10)
    monkeypatch.setattr(krl, "revoked_serials", lambda *given: revoked_serials(*given, most=1))
    for number, exact in ((0, 1.0), (1, 0.0)):
        await site.store.revoke_serial(make_serial(site.now_ms, number), "admin", "", site.now_ms)
        await site.revoked()
        assert f"bastion_api_krl_exact {exact}" in site.ports.services.metrics.text().decode()


async def test_certificates_that_ended_leave_it(site: Site) -> None:
    site.ports.clock.advance(10)
    await site.issue("ended", "alice", ALICE)
    await site.store.revoke_user("alice", "admin", "", site.now_ms)
    full = len((await site.ports.public("GET", "/krl")).content)
    site.ports.clock.advance(3600 + AGE_SECONDS + 1)
    assert len((await site.ports.public("GET", "/krl")).content) < full


async def test_many_who_ask_at_once_are_answered_from_one_reading(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_readings(monkeypatch)
    answers = await asyncio.gather(*(site.ports.public("GET", "/krl") for _ in range(20)))
    assert {one.status_code for one in answers} == {200}
    assert len(reads) == 1


async def test_without_a_database_it_is_unavailable_and_the_epoch_is_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods keep the list that they have; and none that has an outage in it may reach them."""
    await site.store.close()
    answer = await site.ports.public("GET", "/krl")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json")
    epoch = await site.ports.public("GET", "/enrolments/epoch")
    assert (epoch.status_code, epoch.json()["krl"]) == (200, "")


async def test_two_replicas_give_one_tag_to_one_content(site: Site, tmp_path: Path) -> None:
    await site.store.revoke_serial(make_serial(site.now_ms, 5), "admin", "", site.now_ms)
    other = KrlDesk(site.store, site.ports.services.signer, lambda: site.ports.clock.now + 1)
    one, two = await site.ports.services.krl.published(), await other.published()
    assert (one.tag, len(one.content)) == (two.tag, len(two.content))
    assert replace(one, content=b"") != replace(two, content=b"")
