"""What bastions tell, on the internal port: who is in them, and which servers are used."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.errors import Refused
from api.routes.internal import GuardedRoute
from api.services import Injected
from api.sightings import MAX_SESSIONS, Reported

LONG_BODIES = {"/internal/sessions": 4 << 20, "/internal/activity": 1 << 20}
"""Bytes that a report may have: a bastion holds thousands of sessions."""

MAX_SERVERS = 5000

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Digits = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]


class ReportedSession(BaseModel):
    """A session that lives in the bastion; see `api.sightings.Reported`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(pattern=r"^[0-9a-f.]{1,40}$", description="As in the bastion's audit lines.")
    user: str | None = Field(max_length=256)
    identity: str = Field(max_length=256, description="The user, or `key:SHA256:…`.")
    login: str | None = Field(max_length=2048, description="Login name of the server that it leads to.")
    instance: Digits | None
    serial: Digits | None
    mode: str = Field(pattern=r"^[a-z]{1,16}$")
    how: str = Field(pattern=r"^[a-z]{1,16}$")
    peer: str = Field(max_length=64)
    since: float = Field(ge=0, lt=1 << 40, description="Seconds since the epoch.")
    received: Count
    sent: Count


class SessionsReport(BaseModel):
    """Everybody who is in one bastion process now."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bastion: str = Field(pattern=r"^[0-9a-f]{32,64}$", description="The process' own secret: see `ca.sessions`.")
    sessions: list[ReportedSession] = Field(max_length=MAX_SESSIONS)


class UsedServer(BaseModel):
    """A run of a server in which sessions moved data."""

    model_config = ConfigDict(extra="forbid", strict=True)

    login: str = Field(max_length=2048)
    instance: Digits
    at: float = Field(ge=0, lt=1 << 40, description="When they last did, in seconds since the epoch.")


class ActivityReport(BaseModel):
    """Which servers are used over SSH."""

    model_config = ConfigDict(extra="forbid", strict=True)

    servers: list[UsedServer] = Field(max_length=MAX_SERVERS)


class Heard(BaseModel):
    """How much of a report counts."""

    heard: int


router = APIRouter(prefix="/internal", tags=["internal"], route_class=GuardedRoute)


@router.post("/sessions", summary="Who is in a bastion process")
async def post_sessions(services: Injected, body: SessionsReport) -> Heard:
    """Replaces what this process said before. A process that is silent for a minute has no sessions."""
    sessions = [Reported(**one.model_dump()) for one in body.sessions]
    refusal = await services.sightings.hear(body.bastion, sessions, services.now_ms())
    if refusal is not None:
        raise Refused(refusal)
    return Heard(heard=len(sessions))


@router.post("/activity", summary="Which servers are used")
async def post_activity(services: Injected, body: ActivityReport) -> Heard:
    """JupyterHub is told, for those that are enrolled and run: its idle culler then lets them be."""
    used = ((one.login, int(one.instance), one.at) for one in body.servers)
    return Heard(heard=services.activity.note(used, services.now()))
