"""A login that asks for a server which does not run: starting it when somebody approves, and waiting until it is there.

Only where the site lets people start servers, and only the approver's own. Starting is the approver's act: it happens
with the click, never because a client asked.
"""

from dataclasses import dataclass

from api import progress, servers
from api.logins import Login, NewLogin
from api.servers import Person, Seen, State
from api.services import Services
from ca.errors import Reason, Refusal
from ca.names import Instance, Server
from ca.policy import Grant

SSH_SECONDS = 60
"""How long after its start a server that is ready may take to show its SSH, before its certificate is given anyway."""
PATIENCE = 300
"""Seconds after the approval from which nobody waits for SSH any more, whatever the clocks say."""

_NOT_RUNNING = (Reason.NO_SERVER, Reason.SERVER_NOT_RUNNING)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not yet. `percent` and `message` tell how far a server is that was asked for and starts."""

    percent: int | None = None
    message: str = ""


async def would_start(services: Services, who: Person, wanted: NewLogin, refusal: Refusal) -> Server | None:
    """The server that approving would start, where `refusal` is that it does not run. Raises `HubUnavailable`."""
    if not _applies(services, wanted) or refusal.reason not in _NOT_RUNNING:
        return None
    found = await servers.look(services, who, wanted.server or "")
    may = isinstance(found, Seen) and found.state in (State.STOPPED, State.STARTING)
    return found.server if may and isinstance(found, Seen) else None


async def still_starts(
    services: Services, who: Person, login: Login, decided: Grant | Refusal
) -> Waiting | Refusal | None:
    """Whether the client has to wait for its server; a refusal when that failed; None: `decided` is what counts.

    Raises `HubUnavailable`.
    """
    if not _applies(services, login.wanted):
        return None
    if isinstance(decided, Grant):
        return _waits_for_ssh(services, login, decided.instances)
    if decided.reason not in _NOT_RUNNING:
        return None
    found = await servers.look(services, who, login.wanted.server or "")
    if isinstance(found, Refusal):
        return None
    now = await progress.glance(services, who, found.server)
    if now.over and now.state is State.STOPPED:
        return Refusal(Reason.START_FAILED, f"{now.message} Try to start it in JupyterHub, which may say why.")
    return Waiting(now.percent, now.message)


def _waits_for_ssh(services: Services, login: Login, instances: tuple[Instance, ...]) -> Waiting | None:
    enrolled = {one.instance for one in services.store.snapshot.enrolments}
    oldest = services.now_ms() - SSH_SECONDS * 1000
    awaited = [one for one in instances if one not in enrolled and one.id // 1000 > oldest]
    patient = services.now_ms() - (login.decided_at or 0) < PATIENCE * 1000
    return Waiting(95, "The server runs; waiting for its SSH.") if awaited and patient else None


def _applies(services: Services, wanted: NewLogin) -> bool:
    return wanted.start and services.settings.servers.start
