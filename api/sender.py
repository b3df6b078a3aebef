"""What a request says about who sent it: the address, and the token. Nothing here is believed further than that."""

import ipaddress
import re
from collections.abc import Callable, Iterable

import structlog
from fastapi import Request

from api.errors import Refused
from api.settings import Network
from ca.errors import Reason, Refusal

log = structlog.get_logger(__name__)

_AUTHORIZATION = re.compile(r"(?i:token|bearer) +([\x21-\x7e]{1,4096}) *")
_FORWARDED = {"x-forwarded-for", "forwarded"}
_NO_TOKEN = Refusal(
    Reason.INVALID_TOKEN, "Send a token in the Authorization header: `Authorization: token …` or `Bearer …`."
)

THROUGH_PROXY = "jupyterhub_bastion.through_proxy"
"""In the scope of what came through a socket that the proxy alone can open (`api.proxysocket`)."""


def bearer(request: Request) -> str:
    """The token of the `Authorization` header. Raises `Refused` where there is none."""
    found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        raise Refused(_NO_TOKEN)
    return found[1]


def peer_of(request: Request, trusted_proxies: Iterable[Network]) -> str | None:
    """The address that sent this request; None where it is not known.

    `X-Forwarded-For` counts only as far as trusted proxies wrote it: from the right, the first address that is not
    one of theirs. Whatever stands further left was sent by that very address. A socket of the proxy's has no address
    itself, so there the last one written is where to begin.
    """
    told = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    if request.scope.get(THROUGH_PROXY) is True:
        peer = plain_address(told.pop().strip())
    else:
        peer = None if request.client is None else plain_address(request.client.host)
    if peer is None:
        return None
    trusted = tuple(trusted_proxies)
    while told and _among(peer, trusted):
        hop = plain_address(told.pop().strip())
        if hop is None:
            return peer
        peer = hop
    return peer


class UnknownProxies:
    """Notices requests that came through a proxy which nobody named: everybody then seems to be at the proxy's address.

    What such a proxy says of its client is not believed, since anybody can say it. But nobody is taken to be where
    somebody else is either, because both came through it.
    """

    def __init__(self, trusted_proxies: Iterable[Network], saw: Callable[[], None]) -> None:
        self._trusted = tuple(trusted_proxies)
        self._saw = saw
        self._said = False

    def hides(self, request: Request) -> bool:
        """Whether the address of this request's connection is not that of whoever sent it, as far as can be known."""
        peer = plain_address(request.client.host) if request.client else None
        if peer is None or _among(peer, self._trusted) or not _FORWARDED & set(request.headers):
            return False
        self._saw()
        if not self._said:
            self._said = True
            log.warning("unknown_proxy", address=peer, note="set SSH_API_LISTEN_TRUSTED_PROXIES to its addresses")
        return True


def plain_address(text: str) -> str | None:
    """An IP address in its one canonical form (`::ffff:10.0.0.1` is `10.0.0.1`), None for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def _among(address: str, networks: tuple[Network, ...]) -> bool:
    return any(ipaddress.ip_address(address) in network for network in networks)
