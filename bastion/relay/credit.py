"""Flow control from end to end, so that nothing is stored between the two ends of a channel.

SSH's windows (RFC 4254 section 5.2) say how many bytes a receiver is willing to take. The relay keeps no window of its
own: what the receiver allows is passed on to the sender, and what the sender sends is passed on at once. Two things
are done to the number on its way:

- it never exceeds `cap`, however much the receiver offers, since a receiver that offers gigabytes and does not read
  would make the relay hold them;
- a little is held back, so that the relay can say a sentence of its own in the channel (a refusal, a farewell)
  without overrunning the receiver. Receivers with tiny windows keep all of theirs.

    room      what the receiver still takes
    granted   what the sender may still send       granted ≤ min(cap, room − reserve)
"""

RESERVE = 1024
"""Bytes held back for the relay's own sentences."""

_MAX_WINDOW = 0xFFFFFFFF


class Credit:
    """One direction of one channel."""

    __slots__ = ("_cap", "_reserve", "_room", "capped", "granted")

    def __init__(self, offered: int, cap: int) -> None:
        self._cap = cap
        self._room = offered
        self._reserve = RESERVE if offered >= 64 * RESERVE else 0
        self.granted = min(cap, offered - self._reserve)
        self.capped = offered - self._reserve > cap
        """Whether the receiver has ever offered more than `cap`."""

    def spend(self, size: int) -> bool:
        """The sender sent `size` bytes. False: it was not allowed to, and nothing has changed."""
        if size > self.granted:
            return False
        self.granted -= size
        self._room -= size
        return True

    def widen(self, more: int) -> None:
        """The receiver takes `more` bytes. Beyond the protocol's largest window it is capped, not refused."""
        self._room = min(self._room + more, _MAX_WINDOW)
        if self._room - self._reserve > self._cap:
            self.capped = True

    def due(self) -> int:
        """How many bytes to grant the sender now; they count as granted. 0: nothing to tell.

        A sender that has half of the cap left waits for nothing, so it is told of an eighth of the cap at once and
        not of each packet that the receiver took: each word of that costs about as much as a packet of data.
        """
        more = min(self._cap, self._room - self._reserve) - self.granted
        if more <= 0 or (self.granted > self._cap // 2 and more < self._cap // 8):
            return 0
        self.granted += more
        return more

    def speak(self, wanted: int) -> int:
        """How many of `wanted` bytes of our own may be sent to the receiver now; they count as sent."""
        size = max(0, min(wanted, self._room - self.granted))
        self._room -= size
        return size
