"""What proxies wrote about a sender, cut down to what can be theirs before anything reads it.

In a cluster the ingress controller is a pod as notebook servers are, of the same network: whoever believes that
network believes notebooks. So notebooks have a port of their own, where no such header is read at all. On the public
port an address of the pods' networks ends the chain: a notebook that comes through the ingress controller is who it is,
and what stands further left it wrote itself.
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from api.sender import plain_address
from api.settings import Network

_HEADER = b"x-forwarded-for"


class Forwarded:
    """Wraps an app. `pods` are the networks that notebook servers live in; None drops the header altogether."""

    def __init__(self, app: ASGIApp, pods: Sequence[Network] | None) -> None:
        self._app = app
        self._pods = pods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        headers = scope.get("headers", ())
        if any(name == _HEADER for name, _ in headers):
            told = b",".join(value for name, value in headers if name == _HEADER).decode("latin-1")
            kept = [(name, value) for name, value in headers if name != _HEADER]
            if self._pods is not None:
                kept.append((_HEADER, believable(told, self._pods).encode("latin-1")))
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)


def believable(told: str, pods: Iterable[Network]) -> str:
    """The end of `told`, from its last address of a pod on; all of it where there is none."""
    networks, hops = tuple(pods), [hop.strip() for hop in told.split(",")]
    for place in range(len(hops) - 1, -1, -1):
        address = plain_address(hops[place])
        if address is not None and any(ip_address(address) in network for network in networks):
            return ", ".join(hops[place:])
    return told
