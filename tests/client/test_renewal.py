"""Why: ssh asks hubssh before each connection: it renews in silence, or says in one line why it cannot."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.laptop import Laptop, laptop, words

pytestmark = pytest.mark.hub


def issued(alice: Laptop) -> int:
    return len([one for one in alice.system.audit("api", "certificate_issued") if one["user"] == alice.user])


def requests(alice: Laptop) -> list[str]:
    """What clients have asked the service so far; pods ask it all the time."""
    lines = [json.loads(line) for line in alice.system.api.log.read_text().splitlines() if line.startswith("{")]
    paths = [str(line.get("path")) for line in lines if line.get("port") == "public"]
    return [path for path in paths if not path.startswith("/enrolments")]


async def test_while_there_is_nothing_to_do_nobody_is_asked(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    asked = requests(alice)
    assert alice.hubssh("check", "alice.hub").returncode == 0
    assert alice.hubssh("check", "github.com").returncode == 0
    assert requests(alice) == asked


async def test_when_half_of_its_life_is_over_ssh_has_it_renewed_without_a_word(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    alice.half_over()
    before = alice.certificate.read_text()
    done = alice.ssh("alice.hub", "echo in")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    assert alice.certificate.read_text() != before
    assert alice.says("alice.hub", "echo in") == "in\n"


async def test_many_that_start_together_renew_once(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    alice.half_over()
    before = issued(alice)
    with ThreadPoolExecutor(8) as crowd:
        found = list(crowd.map(lambda _: alice.ssh("alice.hub", "echo in"), range(8)))
    assert [one.stdout for one in found] == ["in\n"] * 8, [one.stderr for one in found]
    assert issued(alice) == before + 1


async def test_a_restarted_server_is_told_and_nothing_hangs(alice: Laptop) -> None:
    await alice.runs("again")
    await alice.logged_in()
    await alice.system.hub.stop_server("alice", "again")
    await alice.runs("again")
    done = alice.ssh("again.hub", "true")
    assert done.returncode == 255
    assert "restarted" in done.stderr
    assert alice.wrong("again") == {
        "what": "server",
        "state": "wrong",
        "said": "Your server alice/again was restarted since your certificate was made",
        "cure": "hubssh login",
    }
    await alice.logged_in()
    assert alice.says("again.hub", "echo in") == "in\n"


async def test_a_certificate_that_only_names_stopped_servers_says_what_to_start(alice: Laptop) -> None:
    await alice.runs("lone")
    await alice.logged_in("--server", "lone")
    await alice.system.hub.stop_server("alice", "lone")
    alice.half_over()
    done = alice.ssh("lone.hub", "true")
    assert done.returncode == 255
    assert words(done) == ["hubssh: Your server alice/lone is stopped: hubssh start lone"]


async def test_of_several_stopped_servers_the_one_that_was_typed_is_told(alice: Laptop) -> None:
    bob = laptop(alice.system, alice.folder, "bob")
    await bob.runs("", "one")
    await bob.logged_in()
    await bob.system.hub.stop_server("bob")
    await bob.system.hub.stop_server("bob", "one")
    await bob.runs("later")
    for host, said in (
        ("one.hub", "Your server bob/one is stopped: hubssh start one"),
        ("bob.hub", "Your server bob is stopped: hubssh start"),
        ("later.hub", "Your server bob/later is not in your certificate: hubssh login"),
    ):
        bob.half_over()
        bob.remember(tried_at=0)
        done = bob.ssh(host, "true")
        assert (done.returncode, words(done)) == (255, [f"hubssh: {said}"])


async def test_a_server_that_is_not_in_the_certificate_is_told_apart(alice: Laptop) -> None:
    await alice.runs("old")
    await alice.runs("off")
    await alice.system.hub.stop_server("alice", "off")
    await alice.logged_in()
    done = alice.ssh("off.hub", "true")
    assert (done.returncode, words(done)) == (255, ["hubssh: Your server alice/off is stopped: hubssh start off"])
    await alice.runs("new")
    done = alice.ssh("new.hub", "true")
    assert done.returncode == 255
    assert words(done) == ["hubssh: Your server alice/new is not in your certificate: hubssh login"]


async def test_while_the_service_is_away_a_good_certificate_does(own_alice: Laptop) -> None:
    alice = own_alice
    await alice.runs("")
    await alice.logged_in()
    alice.half_over()
    alice.system.api.end()
    done = alice.ssh("alice.hub", "echo in")
    assert (done.stdout, done.stderr) == ("in\n", "")


async def test_an_ended_certificate_is_told_by_the_service_and_without_it(own_alice: Laptop) -> None:
    alice = own_alice
    await alice.runs("")
    await alice.logged_in()
    alice.ahead = 13 * 3600  # as far as this machine can tell
    assert "is 13 hours ahead" in alice.hubssh("check", "alice.hub").stderr
    alice.system.api.end()
    alice.remember(tried_at=0)
    done = alice.hubssh("check", "alice.hub")
    assert done.returncode == 0
    assert "Your certificate ended at" in done.stderr
    assert "cannot be reached" in done.stderr


async def test_a_revoked_certificate_is_told(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    serial = alice.site()["certificate"]["serial"]
    await alice.revoke(serial)
    alice.half_over()
    done = alice.ssh("alice.hub", "true")
    assert (done.returncode, words(done)) == (255, ["hubssh: This certificate was revoked. Log in again: hubssh login"])
    assert alice.wrong()["said"].startswith("This certificate was revoked.")


async def test_what_is_told_is_told_to_every_client_and_leaves_the_output_alone(alice: Laptop) -> None:
    await alice.runs("quiet")
    await alice.logged_in("--server", "quiet")
    await alice.system.hub.stop_server("alice", "quiet")
    alice.hubssh("list")
    done = alice.run("scp", "quiet.hub:file", str(alice.folder / "file"))
    assert done.returncode != 0
    assert done.stdout == ""
