"""Why: people with weak eyes read these pages too: WCAG 2.2 AA asks for 4.5 to 1 for text, 3 to 1 for what else counts.

Computed from the style sheet's own colours, light and dark, as https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio has it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.pages import HERE

CSS = Path(HERE / "static" / "page.css").read_text()

TEXT = [
    *((text, ground) for text in ("text", "quiet", "link") for ground in ("page", "card", "code")),
    *((text, "card") for text in ("good", "warn", "bad")),
    ("action-text", "action"),
    ("action-text", "action-hover"),
]
FIELD = "page"
"""The ground of a field, on which its hint stands until something is typed."""

SEEN = [("focus", "page"), ("focus", "card"), ("quiet", "card"), ("action", "card"), ("link", "card")]
"""The ring around what has the focus, and the borders of fields and buttons."""


def schemes() -> dict[str, dict[str, str]]:
    """The colours by name: light as they stand first, dark with what the media query changes."""
    light, dark = re.findall(r":root \{([^}]*)\}", CSS)
    read = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in (light, dark)]
    return {"light": read[0], "dark": {**read[0], **read[1]}}


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula_knows_black_white_and_a_published_pair() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_on_every_ground_that_it_stands_on(scheme: str) -> None:
    colours = schemes()[scheme]
    low = {pair: round(found, 2) for pair in TEXT if (found := contrast(*(colours[one] for one in pair))) < 4.5}
    assert low == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_not_text_can_be_told_from_its_ground(scheme: str) -> None:
    colours = schemes()[scheme]
    low = {pair: round(found, 2) for pair in SEEN if (found := contrast(*(colours[one] for one in pair))) < 3}
    assert low == {}


def test_the_hint_in_an_empty_field_is_a_text_like_others() -> None:
    """Browsers make it paler than anything of ours, some by its opacity."""
    (rule,) = re.findall(r"::placeholder \{([^}]*)\}", CSS)
    assert re.findall(r"[a-z-]+: [^;]+", rule) == ["color: var(--quiet)", "opacity: 1"]
    (field,) = re.findall(r"textarea, input\[type=\"text\"\] \{[^}]*background: var\(--([a-z]+)\)", CSS)
    assert field == FIELD
    assert ("quiet", FIELD) in TEXT


def test_no_rule_has_a_colour_of_its_own_that_this_would_not_see() -> None:
    rules = re.sub(r":root \{[^}]*\}", "", CSS)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsla?\(", rules) == []
