"""Why: one form for every result, from which the table in `docs/performance.md` is written. Pure.

A row without figures says why it has none; nothing is filled in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.figures import Goal, Spread, short

BEGIN = "<!-- measured: begin (written by `make bench`; edits between these lines are lost) -->"
END = "<!-- measured: end -->"


class MarkersMissing(Exception):
    """The document has no place for the table, or more than one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `goal` is for `ratio` where it has no unit, else for the worst or median of `bastion`.

    `worst`: the goal holds for every round, not for the median. `why` stands where nothing was measured.
    """

    what: str
    unit: str = ""
    bastion: Spread | None = None
    openssh: Spread | None = None
    ratio: Spread | None = None
    goal: Goal | None = None
    worst: bool = False
    note: str = ""
    why: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or without figures."""
        figure = self.bastion if self.goal is not None and self.goal.unit else self.ratio
        if self.goal is None or figure is None:
            return None
        if not self.worst:
            return self.goal.met(figure.median)
        return self.goal.met(figure.least if self.goal.at_least else figure.most)


@dataclass(frozen=True, slots=True)
class Bars:
    """One panel of the plot: for each label the bastion's figure and OpenSSH's, where there is one."""

    title: str
    unit: str
    bars: tuple[tuple[str, Spread, Spread | None], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What one part of the benchmark found."""

    title: str
    rows: tuple[Row, ...]
    panels: tuple[Bars, ...] = field(default=())
    text: str = ""


def figure(value: Spread | None, unit: str = "") -> str:
    """A median with its extremes."""
    if value is None:
        return "–"
    ended = f" {unit}" if unit else ""
    if value.of == 1:
        return f"{short(value.median)}{ended}"
    return f"{short(value.median)}{ended} ({short(value.least)} … {short(value.most)})"


def goal(row: Row) -> str:
    """The goal and whether it is met."""
    if row.goal is None:
        return "–"
    unit = f" {row.goal.unit}" if row.goal.unit else " ×"
    said = f"{'≥' if row.goal.at_least else '≤'} {short(row.goal.bound)}{unit}"
    if row.met is None:
        return said
    return f"{said}: {'met' if row.met else '**missed**'}"


def markdown(results: Sequence[Result]) -> str:
    """Every part with its table."""
    parts = []
    for result in results:
        lines = [f"### {result.title}", ""]
        if result.text:
            lines += [result.text, ""]
        lines += ["| what | bastion | OpenSSH as jump host | ratio | goal |", "|---|---|---|---|---|"]
        lines += [_line(row) for row in result.rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(row: Row) -> str:
    what = row.what + (f" <br>{row.note}" if row.note else "")
    if row.why:
        return f"| {what} | {row.why} | – | – | {goal(row)} |"
    cells = (what, figure(row.bastion, row.unit), figure(row.openssh, row.unit), figure(row.ratio), goal(row))
    return "| " + " | ".join(cells) + " |"


def splice(document: str, measured: str) -> str:
    """The document with `measured` between its markers and everything else kept. Raises `MarkersMissing`."""
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise MarkersMissing(f"the document must hold once, in this order:\n{BEGIN}\n{END}")
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{measured.strip()}\n\n{END}{after}"
