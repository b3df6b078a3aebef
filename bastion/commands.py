"""What an operator may ask of one bastion process: who is here, end sessions, ask pods for their keys again.

Answers are JSON. Those of several processes are put together by `bastion.workers`, so each says its numbers as well as
its sentence.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from bastion.admin import AdminError, Command
from bastion.inside import Inside
from bastion.pubkeys import KeyCache
from bastion.registry import Line, Registry
from ca.errors import MalformedName
from ca.names import Server, parse_login

MAX_SENTENCE = 400
"""Characters of an operator's sentence that people read."""

_MAX_SERIAL = 1 << 64


class Commands:
    """The commands of one process. `prefix` makes its session numbers unlike those of others: `3.` makes `3.17`."""

    def __init__(self, registry: Registry[Inside], keys: KeyCache, prefix: str = "") -> None:
        self._registry = registry
        self._keys = keys
        self._prefix = prefix

    def table(self) -> Mapping[str, Command]:
        """The commands by name."""
        return {
            "sessions": self.sessions,
            "refresh-keys": self.refresh_keys,
            "cut": self.cut,
            "workers": self.workers,
        }

    async def sessions(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Who is here, oldest first."""
        del request
        return {"sessions": [self._row(one) for one in self._registry.sessions()]}

    async def refresh_keys(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Ask every pod for its public keys now."""
        del request
        counts = await self._keys.refresh()
        return {
            "said": refreshed(counts.pods, counts.keys, counts.failed),
            "pods": counts.pods,
            "keys": counts.keys,
            "failed": counts.failed,
        }

    async def cut(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """End sessions: `which` says whose, `why` is what they read."""
        told = self._cut(str(request.get("which", "")), str(request.get("why", ""))[:MAX_SENTENCE])
        return {"said": told_to_end(told), "cut": told}

    async def workers(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """There are none."""
        del request
        raise AdminError("This bastion is one process. Start it with `serve --workers N` for several.")

    def _cut(self, which: str, why: str) -> int:
        kind, separator, named = which.partition(":")
        if not separator:
            return self._registry.cut(_server(which), why)
        match kind:
            case "session":
                return self._cut_session(named, why)
            case "serial":
                return self._registry.cut_serials(frozenset({_serial(named)}), why)
            case "user":
                if not named:
                    raise AdminError("user: needs a name, as in user:alice.")
                return self._registry.cut_user(named, why)
            case _:
                raise AdminError(
                    f"{which!r} names nothing: write a server (alice, alice/gpu), session:NUMBER, serial:NUMBER or "
                    "user:NAME."
                )

    def _cut_session(self, named: str, why: str) -> int:
        number = named.rpartition(".")[2]
        if not number.isdecimal() or not named.replace(".", "", 1).isdecimal():
            raise AdminError(f"{named!r} is no session: `sessions` shows their numbers in its first column.")
        return self._registry.cut_session(int(number), why) if named == f"{self._prefix}{number}" else 0

    def _row(self, one: Line) -> dict[str, object]:
        about = one.about
        return {
            "id": f"{self._prefix}{one.id}",
            "identity": about.identity,
            "login": about.login,
            "server": str(about.instance.server) if about.instance is not None else "",
            "instance": str(about.instance.id) if about.instance is not None else "",
            "mode": about.mode,
            "how": about.how,
            "session": about.name,
            "serial": None if about.serial is None else str(about.serial),
            "peer": about.peer,
            "since": datetime.fromtimestamp(about.since, UTC).isoformat(timespec="seconds"),
            "received": one.received,
            "sent": one.sent,
            "ending": one.ending,
        }


def told_to_end(sessions: int) -> str:
    """The sentence after a cut."""
    return f"{sessions} session{'' if sessions == 1 else 's'} told to end."


def refreshed(pods: int, keys: int, failed: int) -> str:
    """The sentence after a refresh."""
    return f"{pods} pods answered with {keys} keys; {failed} pods did not answer."


def _serial(named: str) -> int:
    if not named.isdecimal() or int(named) >= _MAX_SERIAL:
        raise AdminError(f"{named!r} is no serial: it is the number that `ssh-keygen -L` shows, as in serial:17.")
    return int(named)


def _server(named: str) -> Server:
    """A server as an operator writes it: `alice/gpu`, or its login name. Raises `AdminError`."""
    try:
        if "/" in named:
            owner, _, name = named.partition("/")
            return Server(owner, name)
        return parse_login(named)
    except MalformedName:
        raise AdminError(f"{named!r} names no server: write alice, alice/gpu or a login name.") from None
