"""What plain keys may do in whose servers, as bastions are told it with the state.

Whoever owns a server writes its `authorized_keys` herself. So a key there does no more than the site lets plain keys
do, than a certificate might here, and than the groups of the server's owner leave her (`ca.policy`). Bastions are told
by name of owners for whom that is less; for hop certificates JupyterHub is asked again (`api.hop`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from api.hub import Model
from ca.claims import groups_of
from ca.limits import Capabilities
from ca.policy import Rules

MAX_NARROWER = 10_000
"""Owners that bastions are told by name; with more of them plain keys have the least of all owners everywhere."""


def narrower_owners(models: Iterable[Model], rules: Rules) -> dict[str, Capabilities]:
    """Owners in whose servers plain keys may do less than elsewhere here, of those in JupyterHub's `models`."""
    if not rules.groups:
        return {}
    usual = rules.plain_key_capabilities()
    owners = {str(model.get("name")): rules.plain_key_capabilities(groups_of(model)) for model in models}
    return {owner: theirs for owner, theirs in owners.items() if theirs != usual}


def told(rules: Rules, narrower: Mapping[str, Capabilities] | None) -> dict[str, Any]:
    """The same as JSON. None: JupyterHub has not said yet who is in which group, so that everybody might be in each."""
    if narrower is None or len(narrower) > MAX_NARROWER:
        usual, narrower = rules.plain_key_capabilities(frozenset(rules.groups)), {}
    else:
        usual = rules.plain_key_capabilities()
    return {
        "direct": rules.raw_keys_direct,
        "capabilities": sorted(usual),
        "owners": {owner: sorted(theirs) for owner, theirs in sorted(narrower.items())},
    }
