"""Why: a program in a loop must not fill the database, the disk or JupyterHub's time, and must not be locked out."""

from __future__ import annotations

from pathlib import Path

import pytest

from api import pace
from api.pace import WINDOW_SECONDS, Kind, Pace, TooFast
from tests.support.hub import Hub
from tests.support.ports import new_key, open_ports
from tests.support.service import running_service

ACCESS = "access:services!service=ssh"


class Watch:
    """A pace with a clock of its own."""

    def __init__(self, **limits: int) -> None:
        self.now = 1000.0
        self.slowed: list[Kind] = []
        self.pace = Pace({Kind(name): limit for name, limit in limits.items()}, lambda: self.now, self.slowed.append)

    def take(self, user: str = "alice", kind: Kind = Kind.CERTIFICATES) -> TooFast | None:
        return self.pace.take(kind, user)


def test_so_many_may_come_at_once_and_then_one_after_the_other() -> None:
    watch = Watch(certificates=10)
    assert [watch.take() for _ in range(10)] == [None] * 10
    refused = watch.take()
    assert refused is not None
    assert (refused.refusal.reason, refused.refusal.retry_after) == ("too_many", WINDOW_SECONDS / 10)
    assert "60 seconds" in refused.refusal.sentence
    watch.now += WINDOW_SECONDS / 10
    assert watch.take() is None
    assert watch.take() is not None


def test_each_user_and_each_kind_is_counted_alone() -> None:
    watch = Watch(certificates=1, enrolments=1)
    assert [watch.take(), watch.take("bob"), watch.take(kind=Kind.ENROLMENTS)] == [None] * 3
    assert watch.take() is not None
    assert watch.slowed == [Kind.CERTIFICATES]


def test_only_the_first_of_a_row_of_refusals_is_worth_a_line() -> None:
    watch = Watch(certificates=1)
    watch.take()
    rows = [watch.take() for _ in range(3)]
    assert [one is not None and one.first for one in rows] == [True, False, False]
    watch.now += WINDOW_SECONDS
    assert watch.take() is None
    assert [one is not None and one.first for one in (watch.take(), watch.take())] == [True, False]
    assert len(watch.slowed) == 5


def test_a_limit_of_none_and_a_clock_that_is_set_back_refuse_nobody() -> None:
    watch = Watch(certificates=0, enrolments=2)
    assert [watch.take() for _ in range(1000)] == [None] * 1000
    assert watch.take(kind=Kind.ENROLMENTS) is None
    watch.now -= 1e6
    assert watch.take(kind=Kind.ENROLMENTS) is None


def test_users_who_did_nothing_for_long_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MOST_BUCKETS", 3)
    watch = Watch(certificates=1)
    watch.take("old")
    watch.now += WINDOW_SECONDS
    for user in ("a", "b", "c", "d"):
        assert watch.take(user) is None
        assert watch.take(user) is not None
    assert len(watch.pace._buckets) <= 3


async def test_certificates_in_a_loop_get_429_and_one_audit_line(hub: Hub, tmp_path: Path) -> None:
    await hub.start_server("alice")
    async with running_service(hub, tmp_path / "state", LIMITS_CERTIFICATES="2") as service:
        token = await hub.token("alice", [ACCESS])
        answers = [
            await service.request("POST", "/certificates", token, json={"public_key": new_key()}) for _ in range(5)
        ]
        assert [one.status_code for one in answers] == [201, 201, 429, 429, 429]
        assert answers[-1].json()["error"] == "too_many"
        assert answers[-1].headers["retry-after"] == "300"
        (line,) = service.events("certificate_refused")
        assert (line["user"], line["reason"]) == ("alice", "too_many")
        metrics = service.services.metrics.text().decode()
        assert 'bastion_api_slowed_total{kind="certificates"} 3.0' in metrics
        bobs = await service.request("POST", "/certificates", await hub.token("bob", [ACCESS]), json={"public_key": ""})
        assert bobs.status_code == 400
        service.clock.advance(300)
        again = await service.request("POST", "/certificates", token, json={"public_key": new_key()})
        assert again.status_code == 201


async def test_enrolments_in_a_loop_get_429_and_one_audit_line(hub: Hub, tmp_path: Path) -> None:
    await hub.start_server("alice", "gpu")
    async with open_ports(hub, tmp_path / "state", LIMITS_ENROLMENTS="2") as ports:
        token = await hub.server_token("alice", "gpu")
        key = new_key()
        answers = [await ports.enrol(token, host_key=key) for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 429, 429]
        assert answers[-1].headers["retry-after"] == "300"
        (line,) = ports.events("enrolment_refused")
        assert (line["user"], line["server"], line["reason"]) == ("alice", "alice/gpu", "too_many")
