"""Why: pods that cannot be had are what operators hear of last; a metric says how many and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pods import key
from tests.support.site import Site, site


def gone(at: Site) -> None:
    at.sshd.stop()


def another_host_key(at: Site) -> None:
    (pod,) = at.api.state["enrolled"]
    at.api.change(enrolled=[{**pod, "host_key": key(7).line}])


def no_hop_certificate(at: Site) -> None:
    at.api.answers["/internal/hop-certificates"] = (503, {"error": "unavailable", "error_description": "Away."})


def another_user(at: Site) -> None:
    (pod,) = at.api.state["enrolled"]
    at.api.change(enrolled=[{**pod, "unix_user": "nobody-here"}])


def elsewhere(at: Site) -> None:
    at.settings["BASTION_PODS_NETWORKS"] = "192.0.2.0/24"


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (gone, "unreachable"),
        (another_host_key, "wrong_host_key"),
        (no_hop_certificate, "no_certificate"),
        (another_user, "login_refused"),
        (elsewhere, "address"),
    ],
)
async def test_why_a_pod_could_not_be_had_is_counted(
    tmp_path: Path, trouble: Callable[[Site], None], reason: str
) -> None:
    async with site(tmp_path, METRICS_PORT="0", SHUTDOWN_GRACE="0") as made:
        trouble(made)
        await made.start()
        name = f'pod_connection_failures_total{{reason="{reason}"}}'
        assert await made.metric(name) == 0
        assert not await made.gets_in(made.key("alice"))
        assert await made.metric(name) >= 1


async def test_whom_a_pod_does_not_let_in_is_named_and_who_can_help(tmp_path: Path) -> None:
    async with site(tmp_path, SHUTDOWN_GRACE="0") as made:
        another_user(made)
        await made.start()
        _, _, said = await (await made.ssh(made.key("alice"), "true", log_level="INFO")).ends()
    assert b"The server alice does not let the bastion in as nobody-here. Restart the server" in said
    assert b"ask the administrator of this hub whether its image works as another user." in said
