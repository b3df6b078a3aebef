"""Raw keys: which pods list a key in their `authorized_keys`, through a cache with stated ages."""

from bastion.pubkeys.cache import CacheLimits, KeyCache, Listing
from bastion.pubkeys.pod import KeysUnavailable, PodKeys, PodLimits
from bastion.pubkeys.refresh import Counts
from bastion.pubkeys.tiers import Ages

__all__ = ["Ages", "CacheLimits", "Counts", "KeyCache", "KeysUnavailable", "Listing", "PodKeys", "PodLimits"]
