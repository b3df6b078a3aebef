"""What an address counts under where strangers are counted: one IPv6 customer has a /64, and often a whole /48."""

import ipaddress

WIDE_CHARACTERS = 15
"""`255.255.255.255` has as many as `2001:0db8:0000:`, the beginning of what lies in one /48."""


def network_of(address: str | None) -> str:
    """An IPv4 address itself, the /64 of an IPv6 one with all its digits, "unknown" for what is none."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    return f"{parsed.exploded[:19]}/64" if parsed.version == 6 else str(parsed)


def wide_network_of(network: str) -> str:
    """The /48 of such a /64; anything else as it is. In SQL it is the same: the first `WIDE_CHARACTERS` characters."""
    return network[:WIDE_CHARACTERS]
