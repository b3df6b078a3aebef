"""Servers over HTTP: which there are, starting and stopping one's own, and how a start goes on."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from api import progress, servers
from api.edge import JsonRoute
from api.errors import Refused, StoreUnavailable
from api.front import FrontDoor
from api.progress import Progress
from api.proof import Holder
from api.routes.who import FORM_TOKEN_HEADER, asker
from api.sender import peer_of
from api.servers import Person, Seen
from api.services import Injected, Services
from api.session import Session
from ca.audit import RequestRefused
from ca.claims import TokenOwner
from ca.errors import Refusal
from ca.names import Server

SERVER = PathParameter(
    max_length=2048,
    description="The login name of one of your own servers (`alice`, `alice+gpu`), or just the server's name.",
    examples=["alice+gpu"],
)


class ServerState(BaseModel):
    """A server and what it does now."""

    owner: Annotated[str, Field(examples=["alice"])]
    name: Annotated[str, Field(examples=["gpu"], description="Empty for the default server.")]
    login: Annotated[str, Field(examples=["alice+gpu"])]
    host_name: Annotated[str, Field(examples=["alice+gpu.hub"])]
    state: Literal["starting", "running", "stopping", "stopped"]
    ssh: Annotated[bool | None, Field(description="Whether its pod takes SSH connections; null unless it runs.")]
    via: Annotated[Literal["own", "shared"], Field(description="`shared`: its owner shared it with you for SSH.")]
    instance: Annotated[
        str | None, Field(examples=["1763766746279903"], description="Which run this is; null while there is none.")
    ]
    unix_user: Annotated[
        str | None, Field(examples=["jovyan"], description="Whom its sshd lets in, for `ssh -J`; null unless `ssh`.")
    ]


class ServerList(BaseModel):
    """Your servers, and those that are shared with you for SSH and run."""

    user: Annotated[str, Field(examples=["alice"])]
    may_start: Annotated[bool, Field(description="Whether you may start and stop your own servers from here.")]
    servers: list[ServerState]


router = APIRouter(tags=["servers"], route_class=JsonRoute)


async def person(who: Annotated[TokenOwner | Session | Holder, Depends(asker)]) -> Person:
    """Who asks, whatever they showed. Reading is all that this is good for."""
    if isinstance(who, Holder):
        return Person(who.user, who.record.user_made)
    return Person(who.user, who.made) if isinstance(who, Session) else Person(who.user)


async def changer(
    request: Request,
    services: Injected,
    front: FrontDoor,
    who: Annotated[TokenOwner | Session | Holder, Depends(asker)],
) -> Person:
    """The same for what changes something: a browser session must show its form token, as another site cannot."""
    if isinstance(who, Session):
        refusal = front.sessions.judge_form(who, request.headers.get(FORM_TOKEN_HEADER, ""), request.headers)
        if refusal is not None:
            raise _refused(request, services, refusal)
    return await person(who)


@router.get("/servers", summary="List your servers")
async def listing(
    request: Request, services: Injected, response: Response, who: Annotated[Person, Depends(person)]
) -> ServerList:
    """Your own servers, whether they run or not, and those shared with you for SSH that run."""
    response.headers["Cache-Control"] = "no-store"
    found = await servers.listing(services, who)
    if isinstance(found, Refusal):
        raise _refused(request, services, found)
    zone = services.settings.zone
    return ServerList(
        user=who.user, may_start=services.settings.servers.start, servers=[_state(one, zone) for one in found]
    )


@router.post("/servers/{login}", status_code=202, summary="Start a server")
async def start(
    login: Annotated[str, SERVER], request: Request, services: Injected, who: Annotated[Person, Depends(changer)]
) -> ServerState:
    """Starts one of your own servers, with SSH and with the choices of its last run. One that runs is left alone.

    The answer comes when the start has begun; `/servers/{login}/progress` tells how it goes on.
    """
    return _answer(await servers.start(services, who, login, _peer(request, services)), services)


@router.delete("/servers/{login}", status_code=202, summary="Stop a server")
async def stop(
    login: Annotated[str, SERVER], request: Request, services: Injected, who: Annotated[Person, Depends(changer)]
) -> ServerState:
    """Stops one of your own servers. Its SSH sessions end, and no certificate of this run opens it any more."""
    return _answer(await servers.stop(services, who, login, _peer(request, services)), services)


@router.get(
    "/servers/{login}/progress",
    summary="Watch a server start",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events, one JSON object each."}},
)
async def follow(
    login: Annotated[str, SERVER], request: Request, services: Injected, who: Annotated[Person, Depends(person)]
) -> StreamingResponse:
    """Events `{"state", "percent", "message", "ssh", "over", "failed"}`, the first at once, until one has `over`.

    A stream that ends without it was too long for one answer: ask again.
    """
    found = await servers.look(services, who, login)
    if isinstance(found, Refusal):
        raise _refused(request, services, found)
    if refusal := services.watchers.refuse(who.user):
        raise _refused(request, services, refusal)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(services, who, found.server), media_type="text/event-stream", headers=headers)


async def _events(services: Services, who: Person, server: Server) -> AsyncGenerator[str, None]:
    with services.watchers.watching(who.user), suppress(StoreUnavailable):
        async with aclosing(progress.watch(services, who, server)) as steps:
            async for one in steps:
                yield event(one)


def event(one: Progress) -> str:
    """A step of a start as a server-sent event."""
    told = {
        "state": str(one.state),
        "percent": one.percent,
        "message": one.message,
        "ssh": one.ssh,
        "over": one.over,
        "failed": one.failed,
    }
    return f"data: {json.dumps(told)}\n\n"


def _answer(found: Seen | Refusal, services: Services) -> ServerState:
    if isinstance(found, Refusal):
        raise Refused(found)
    return _state(found, services.settings.zone)


def _state(one: Seen, zone: str) -> ServerState:
    return ServerState(
        owner=one.server.owner,
        name=one.server.name,
        login=one.server.login,
        host_name=one.server.host_name(zone),
        state=one.state.value,
        ssh=one.ssh,
        via="own" if one.via == "own" else "shared",
        instance=None if one.instance is None else str(one.instance.id),
        unix_user=one.unix_user,
    )


def _refused(request: Request, services: Services, refusal: Refusal) -> Refused:
    services.audit(RequestRefused(route="/servers", reason=refusal.reason, peer=_peer(request, services)))
    return Refused(refusal)


def _peer(request: Request, services: Services) -> str | None:
    return peer_of(request, services.settings.listen.trusted_proxies)
