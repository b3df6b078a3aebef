"""Where the tunnels of one connection may go: to the SSH ports of pods that its holder was admitted to, nowhere else.

Each tunnel is judged for itself and registered in the very step that asks whether its pod still runs; the registry
cuts it when the pod stops, while the connection's other tunnels go on.
"""

import re
from collections.abc import Callable

from bastion.admission import Admission, Mode, claimed_twice, may_jump, not_ready, only, stopped
from bastion.directory.table import Pod, claiming
from bastion.house import House
from bastion.inside import Passage
from bastion.registry import About, Registration
from bastion.relay.front import Tunnel, TunnelLink
from bastion.relay.meanings import DirectTcp
from ca import audit
from ca.errors import MalformedName, Reason, Refusal
from ca.names import Instance, Server, parse_host_name

SSH_PORT = 22

_POD_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
"""What Kubernetes lets pods be called: a name with `+`, `=` or `_` is none of theirs."""


class Tunnels:
    """The tunnels of the connection `session` from `peer`. `describe` makes what the registry holds; `noted` writes the
    audit line of a refused action; `part` ends the connection with a sentence; `why` says of what it ends."""

    def __init__(
        self,
        house: House,
        session: str,
        peer: str,
        describe: Callable[[Admission, Instance, Mode, str], About],
        noted: Callable[[str, Refusal | None], Refusal | None],
        part: Callable[[str], None],
        why: Callable[[], str],
    ) -> None:
        self._house = house
        self._session = session
        self._peer = peer
        self._describe = describe
        self._noted = noted
        self._part = part
        self._why = why
        self._count = 0

    def target(self, meaning: DirectTcp, admission: Admission) -> Server | None:
        """The server that a `direct-tcpip` open names, if it has one of the forms of jump mode.

        A login that has a pod of its own may mean any other port there, or a service of the cluster that the pod knows
        by such a name: that is for the pod to dial.

        A namespace may have the zone's name, so that `<pod>.<namespace>` reads like a server's host name, and a user
        may be called as somebody else's pod. What is meant must not hang on what runs or on who lists a key, since an
        attacker has a hand in both: one's own server by a certificate's word, else the pod with that name, else the
        server with that host name, unless it looks like a pod's name.
        """
        if admission.target is not None and meaning.port not in self._jump_ports(admission.target):
            return None
        host = meaning.host.rstrip(".")
        by_host = self._by_host_name(host)
        pod = self._house.directory.by_name(host)
        by_pod = pod.server if isinstance(pod, Pod) else None
        if not admission.certified:
            return by_pod or self._unless_a_pods_name(by_host)
        if by_host is not None and by_host.owner == admission.identity:
            return by_host
        named = [one for one in (by_pod, self._unless_a_pods_name(by_host)) if one is not None]
        admitted = {one.server for one in admission.instances}
        return next((one for one in named if one in admitted), named[0] if named else None)

    def _jump_ports(self, own: Instance) -> set[int]:
        """Which ports of a name mean jump mode to a login into `own`. They do not hang on the pod that is named: the
        answer would tell whether somebody else's server runs."""
        pod = self._house.directory.find(own.server)
        return {SSH_PORT, pod.ssh_port} if isinstance(pod, Pod) else {SSH_PORT}

    def _by_host_name(self, host: str) -> Server | None:
        try:
            return parse_host_name(host, self._house.zone())
        except MalformedName:
            return None

    def _unless_a_pods_name(self, server: Server | None) -> Server | None:
        """`server`, unless its host name could as well be the name of another server's pod, which may not run now."""
        pod = self._house.directory.find(server) if server is not None else None
        if server is None or not isinstance(pod, Pod):
            return server
        return None if looks_like_a_pods_name(server.login, pod, self._house.zone()) else server

    def open(self, server: Server, port: int, admission: Admission) -> Tunnel | Refusal:
        """One answer for everything that is not the user's, so that nobody learns what else there is.

        A tunnel is a session of its own: what would refuse a new connection now refuses it too.
        """
        if refusal := self._house.authenticator.informed() or may_jump(admission):
            return refusal
        pod = self._house.directory.find(server)
        if not isinstance(pod, Pod):
            return self._why_closed(server, admission)
        if port not in {SSH_PORT, pod.ssh_port}:
            return wrong_target()
        named = pod.instance in admission.instances
        if not named and admission.certified:
            if server in {one.server for one in admission.instances}:
                return Refusal(
                    Reason.SERVER_RESTARTED, f"Your server {server} was restarted: log in again for a new certificate."
                )
            return self._why_closed(server, admission)
        if not pod.ready and named:  # to others it is said once the pod is known to list their key
            return not_ready(server)
        stands_on = only(admission, pod.instance)
        self._count += 1
        passage = Passage(
            self._describe(admission, pod.instance, Mode.JUMP, f"{self._session}.{self._count}"),
            lambda: self._house.authenticator.still_valid(stands_on) or self._left(pod),
            self._part,
        )
        return Tunnel(
            pod.address,
            pod.ssh_port,
            prepare=lambda link: self._prepare(passage, link, pod, admission),
            ended=lambda: self._ended(passage, pod),
        )

    async def _prepare(self, passage: Passage, link: TunnelLink, pod: Pod, admission: Admission) -> Refusal | None:
        """Before a tunnel is dialled: the pod lists the key (where that is the claim), is the one that enrolled, and
        still runs in the very step that registers the tunnel."""
        passage.link = link
        refusal = await self._listed(pod, admission) or await self._house.reach.verify(pod)
        if passage.over:  # the client went away meanwhile: nobody would ever end what is registered now
            return Refusal(Reason.ABANDONED, "The connection has ended.")
        if refusal is None:
            registered = self._house.registry.register(passage, lambda: self._begins(passage, pod))
            if isinstance(registered, Registration):
                passage.registration = registered
                self._house.note(
                    audit.TunnelOpened(
                        peer=self._peer,
                        session=self._session,
                        identity=admission.identity,
                        tunnel=passage.about.name,
                        principal=pod.instance.principal,
                    )
                )
                return None
            refusal = registered
        return self._noted("direct-tcpip", refusal)

    def _ended(self, passage: Passage, pod: Pod) -> None:
        """The channel is over, however far it came. What was opened has a line that says why it ended."""
        passage.ended()
        if passage.registration is None or passage.link is None:
            return
        why = passage.cut
        if why is None:
            why = "pod" if passage.link.left else self._why()
        received, sent = passage.transferred
        self._house.note(
            audit.TunnelClosed(
                peer=self._peer,
                session=self._session,
                identity=passage.about.identity,
                tunnel=passage.about.name,
                principal=pod.instance.principal,
                why=why,
                seconds=round(self._house.wall() - passage.about.since, 3),
                bytes_in=received,
                bytes_out=sent,
            )
        )

    async def _listed(self, pod: Pod, admission: Admission) -> Refusal | None:
        """A raw key opens exactly the pods that list it; what was known at login may have been a part of them."""
        if admission.certified or pod.instance in admission.instances:
            return None
        if not await self._house.authenticator.lists(pod, admission.key):
            return wrong_target()
        if not pod.ready:
            return not_ready(pod.server)
        return self._house.authenticator.may_jump_into(pod, admission)

    def _begins(self, passage: Passage, pod: Pod) -> Refusal | None:
        """In the step that registers a tunnel: it needs more than one that is there already."""
        return self._house.authenticator.informed() or passage.still_valid() or self._twice(pod.server)

    def _twice(self, server: Server) -> Refusal | None:
        return claimed_twice(server, self._house.directory)

    def _why_closed(self, server: Server, admission: Admission) -> Refusal:
        """Why a server cannot be entered, for whoever's certificate names it; nobody else learns anything."""
        if server in {one.server for one in admission.instances}:
            return self._twice(server) or stopped(server)
        return dict(admission.closed).get(server) or wrong_target()

    def _left(self, pod: Pod) -> Refusal | None:
        """Whether a live tunnel's pod is gone, alone or beside another that claims its server."""
        found = claiming(self._house.directory.find(pod.server))
        return None if any(one.identity == pod.identity for one in found) else stopped(pod.server)


def looks_like_a_pods_name(login: str, pod: Pod, zone: str) -> bool:
    """Whether `<login>.<zone>` can be the name of a pod beside `pod`, which runs the server with that login.

    Only where the namespace has the zone's name. How pods are named here shows in how this one is: with its login
    between a beginning and an end (`jupyter-alice`). Where that does not show, every name can be a pod's.
    """
    if not _POD_NAME.fullmatch(login):
        return False
    for name in pod.names:
        own = name.removesuffix(f".{zone}")
        if own == name:
            continue
        begin, found, end = own.rpartition(login)
        if not found or (begin + end and login.startswith(begin) and login.endswith(end)):
            return True
    return False


def wrong_target() -> Refusal:
    return Refusal(Reason.WRONG_TARGET, "Your login does not open that destination.")
