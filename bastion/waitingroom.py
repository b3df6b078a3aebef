"""Where connections wait for somebody at a browser: a room of its own, since minutes are nothing there.

In the lobby a connection has a minute to log in, and strangers who only sit there make room for others. A person who
reads an address, logs in at JupyterHub and approves takes longer than that, and must not be pushed out by a flood of
half-open connections; nor must a flood of people who wait keep out anybody with a certificate. So whoever was told an
address leaves the lobby and waits here, within bounds of their own.

The rule is the lobby's: newcomers are let in, and the one who has waited longest at the heaviest address makes room.
What such a place costs elsewhere, a row in the api's database, is bounded by the pace: an address may begin as many
waits in the time that a code counts as may wait there at once. Waits that let somebody in do not count, so that those
behind one NAT do not use up each other's.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from bastion.lobby import Bound, Lobby, LobbyLimits, Ticket
from ca.errors import Reason, Refusal

_UNBOUNDED = 1 << 30

_SETTINGS = {Bound.PER_ADDRESS: "interactive_per_address"}
"""The names of the settings where the lobby's own would be told; the others are `interactive`."""

TOO_MANY = Refusal(
    Reason.TOO_MANY,
    "Too many logins from your address were begun in the last minutes. Try again later, or log in with a certificate.",
)


@dataclass(frozen=True, slots=True)
class WaitingLimits:
    """The bounds. `total` and `per_address` count connections that wait (an IPv6 /64 is one address); `seconds` is how
    long one may, and the time in which an address may begin `per_address` waits."""

    total: int = 1000
    per_address: int = 400
    seconds: float = 600.0


class WaitingRoom:
    """The connections of this process that wait for a browser. Not thread-safe: one event loop owns it."""

    def __init__(
        self, limits: WaitingLimits, *, clock: Callable[[], float], hit: Callable[[str], None] = lambda _: None
    ) -> None:
        """`clock` gives monotonic seconds; `hit` is told the setting of each bound that is reached."""
        self.limits = limits
        self._clock = clock
        self._hit = hit
        self._paces: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._places = Lobby(
            LobbyLimits(
                start=limits.total,
                rate=100,
                full=limits.total + 1,
                per_address=limits.per_address,
                connections=_UNBOUNDED,
                connections_per_address=_UNBOUNDED,
            ),
            hit=lambda bound: hit(_SETTINGS.get(Bound(bound), "interactive")),
            chance=lambda: 0.0,
        )

    def __len__(self) -> int:
        """How many wait."""
        return self._places.waiting

    @property
    def addresses(self) -> int:
        """How many addresses they come from."""
        return self._places.addresses_waiting

    def enter(self, block: str, drop: Callable[[], None]) -> Ticket | Refusal:
        """A place for a connection from `block` (`bastion.lobby.block_of`); leave it with `leave`.

        `drop` is called, at most once, when it has to make room for another.
        """
        if not self._may_begin(block):
            self._hit("interactive_per_address")
            return TOO_MANY
        place = self._places.enter(block, drop)
        return TOO_MANY if isinstance(place, Bound) else place

    def give_back(self, block: str) -> None:
        """A wait from `block` let somebody in: another may be begun there instead."""
        if block in self._paces:
            left, at = self._paces[block]
            self._paces[block] = (min(left + 1, float(self.limits.per_address)), at)

    def hit_seconds(self) -> None:
        """Somebody has waited for as long as one may."""
        self._hit("interactive_seconds")

    def _may_begin(self, block: str) -> bool:
        """Take one of the waits that this address may begin; they come back evenly over `seconds`."""
        now, most = self._clock(), float(self.limits.per_address)
        left, at = self._paces.pop(block, (most, now))
        left = min(most, left + (now - at) * most / self.limits.seconds)
        self._paces[block] = (left - 1 if left >= 1 else left, now)
        while self._paces and now - next(iter(self._paces.values()))[1] > self.limits.seconds:
            self._paces.popitem(last=False)  # all of its waits have come back
        return left >= 1
