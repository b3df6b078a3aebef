"""Label and field selectors, as the Kubernetes API reads them in a query: equality and presence, joined by commas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TERM = re.compile(r"(?P<not>!)?(?P<name>[^=!]+)(?:(?P<how>==|=|!=)(?P<value>.*))?")


def labels_match(thing: Mapping[str, Any], selector: str) -> bool:
    """Whether an object's labels are what the selector asks for."""
    labels = thing["metadata"].get("labels") or {}
    return all(_holds(term, labels.get(term["name"].strip())) for term in _terms(selector))


def fields_match(thing: Mapping[str, Any], selector: str) -> bool:
    """Whether an object's fields (`status.phase=Running`) are what the selector asks for."""
    for term in _terms(selector):
        value: Any = thing
        for part in term["name"].strip().split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not _holds(term, "" if value is None else str(value)):
            return False
    return True


def _terms(selector: str) -> Iterator[re.Match[str]]:
    for text in filter(None, (part.strip() for part in selector.split(","))):
        term = _TERM.fullmatch(text)
        if term is None:
            raise ValueError(f"not a selector: {text}")
        yield term


def _holds(term: re.Match[str], value: str | None) -> bool:
    if term["how"] is None:
        return (value is None) == bool(term["not"])
    return (value == term["value"].strip()) == (term["how"] != "!=")
