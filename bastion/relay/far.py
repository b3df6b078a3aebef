"""The other end of a channel: what arrives at one end leaves by the other in the same call.

A leg's far end is another leg, a tunnel's TCP connection, or nowhere, once there is none any more.
"""

# ruff: noqa: ARG002 - whatever is a far end answers the same calls, whether it needs every argument or not

from typing import Protocol

from bastion.relay.answers import Slot


class Far(Protocol):
    """Where a leg's traffic goes: another leg, or a tunnel's TCP connection."""

    def data(self, kind: int, size: int, body: bytes) -> None:
        """`size` bytes of (extended) data; `body` is the packet after the channel number."""

    def widen(self, more: int) -> None:
        """The near end's peer takes `more` bytes."""

    def eof(self) -> None:
        """The near end's peer sends no more data."""

    def request(self, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """A channel request to pass on; the reply goes into `slot` when one is wanted."""

    def close(self) -> None:
        """The near end's peer closed the channel, or is gone."""

    def opened(self, window: int, packet: int, extra: bytes) -> None:
        """The channel was confirmed at the near end."""

    def refused(self, code: int, text: str, language: str) -> None:
        """The channel was refused at the near end."""

    def speak(self, wanted: int) -> int:
        """How many bytes of our own may go to the near end's peer now."""


class Nowhere:
    """The far end of a channel that no longer has one."""

    def data(self, kind: int, size: int, body: bytes) -> None: ...
    def widen(self, more: int) -> None: ...
    def eof(self) -> None: ...
    def request(self, name: bytes, payload: bytes, slot: Slot[int] | None) -> None: ...
    def close(self) -> None: ...
    def opened(self, window: int, packet: int, extra: bytes) -> None: ...
    def refused(self, code: int, text: str, language: str) -> None: ...
    def speak(self, wanted: int) -> int:
        return 0


NOWHERE = Nowhere()
