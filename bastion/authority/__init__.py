"""The one door to the api: what it says about the world, and the certificates it gives the bastion."""

from bastion.authority.client import Authority, Issued, Pace, UnsafeAuthority
from bastion.authority.errors import AuthorityError, AuthorityRefused, AuthorityUnavailable
from bastion.authority.hop import Hop, HopCertificates, Proof
from bastion.authority.logins import BegunLogin, Fetched, LoginDesk
from bastion.authority.secret import Secret, read_secret
from bastion.authority.state import NO_RAW_KEYS, AuthorityState, RawKeys, Word
from bastion.authority.store import AuthorityStore

__all__ = [
    "NO_RAW_KEYS",
    "Authority",
    "AuthorityError",
    "AuthorityRefused",
    "AuthorityState",
    "AuthorityStore",
    "AuthorityUnavailable",
    "BegunLogin",
    "Fetched",
    "Hop",
    "HopCertificates",
    "Issued",
    "LoginDesk",
    "Pace",
    "Proof",
    "RawKeys",
    "Secret",
    "UnsafeAuthority",
    "Word",
    "read_secret",
]
