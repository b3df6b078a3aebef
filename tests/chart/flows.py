"""Why: what NetworkPolicies allow together is hard to see; this says of one flow whether they do. Pure.

As Kubernetes defines it: a pod that no policy of a direction selects is open in that direction; one that is selected
takes what any rule of any such policy allows, and nothing else. A flow between two pods needs both directions.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Rule = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """One side of a flow: a pod, or an address outside of the cluster (no labels, no namespace)."""

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    """Ports with names, which policies may use."""


def allowed(policies: Sequence[Rule], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies let `source` open a connection to `port` of `target`."""
    leaves = _passes(policies, "Egress", source, target, port, protocol, target)
    return leaves and _passes(policies, "Ingress", target, source, port, protocol, target)


def _passes(
    policies: Iterable[Rule], direction: str, subject: End, other: End, port: int, protocol: str, listener: End
) -> bool:
    if subject.namespace is None:
        return True
    binding = [
        one
        for one in policies
        if one["metadata"]["namespace"] == subject.namespace
        and direction in _types(one["spec"])
        and _selects(one["spec"]["podSelector"], subject.labels)
    ]
    if not binding:
        return True
    rules = [rule for one in binding for rule in one["spec"].get(direction.lower()) or ()]
    side = "from" if direction == "Ingress" else "to"
    return any(
        _port_matches(rule.get("ports"), port, protocol, listener)
        and (not rule.get(side) or any(_peer_matches(peer, other, subject.namespace) for peer in rule[side]))
        for rule in rules
    )


def _types(spec: Rule) -> Sequence[str]:
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _port_matches(ports: Sequence[Rule] | None, port: int, protocol: str, listener: End) -> bool:
    if not ports:
        return True
    for one in ports:
        if one.get("protocol", "TCP") != protocol:
            continue
        first = one.get("port")
        if first is None:
            return True
        if isinstance(first, str):
            first = listener.ports.get(first, -1)
        if first <= port <= one.get("endPort", first):
            return True
    return False


def _peer_matches(peer: Rule, other: End, own_namespace: str) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        address = ipaddress.ip_address(other.address)
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(one) for one in block.get("except", ()))
    if other.namespace is None:
        return False
    if "namespaceSelector" in peer:
        about = {"kubernetes.io/metadata.name": other.namespace}
        if not _selects(peer["namespaceSelector"], about):
            return False
    elif other.namespace != own_namespace:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Rule, labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression_holds(one, labels) for one in selector.get("matchExpressions") or ())


def _expression_holds(expression: Rule, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"unknown operator {expression['operator']}")
