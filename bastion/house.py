"""What every connection shares: the rooms that answer its questions."""

from collections.abc import Callable
from dataclasses import dataclass

from bastion.auth import Authenticator
from bastion.directory.table import Directory
from bastion.inside import Inside
from bastion.interactive import BrowserLogins
from bastion.registry import Registry
from bastion.target import Reach
from ca import audit


@dataclass(frozen=True, slots=True)
class House:
    """Made once a process. `note` writes an audit event; `wall` gives seconds since the epoch."""

    authenticator: Authenticator
    browser: BrowserLogins
    directory: Directory
    registry: Registry[Inside]
    reach: Reach
    note: Callable[[audit.Event], None]
    wall: Callable[[], float]
    zone: Callable[[], str]
    cut_at_expiry: bool = False
