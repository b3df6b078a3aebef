"""Why: where the bastion stands beside OpenSSH is seen faster than read. Pure: panels in, the text of an SVG out."""

from collections.abc import Sequence
from html import escape

from bench.figures import Spread, short
from bench.table import Bars

_WIDTH = 900
_LEFT, _RIGHT = 250, 110
_BAR, _GAP, _HEAD = 15, 12, 46
_STYLE = (
    ".t{fill:#1f2328}.s{fill:#57606a;font-size:12px}.o{fill:#f37726}.r{fill:#8b949e}.w{stroke:#1f2328;stroke-width:1.2}"
    "@media (prefers-color-scheme: dark){.t{fill:#e6edf3}.s{fill:#9da7b1}.w{stroke:#e6edf3}}"
)


def svg(panels: Sequence[Bars]) -> str:
    """Horizontal bars with whiskers from the least to the greatest round; orange is the bastion, grey OpenSSH."""
    body, y = [_legend()], 40
    for panel in panels:
        drawn, y = _panel(panel, y)
        body += drawn
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" font-family="system-ui, sans-serif" '
        'font-size="14" role="img" aria-label="Medians and spreads of the benchmark: the bastion and OpenSSH">'
    )
    return "\n".join([head, f"<style>{_STYLE}</style>", *body, "</svg>"]) + "\n"


def _legend() -> str:
    return (
        '<rect class="o" x="20" y="12" width="14" height="14"/><text class="t" x="40" y="24">bastion</text>'
        '<rect class="r" x="120" y="12" width="14" height="14"/>'
        '<text class="t" x="140" y="24">OpenSSH as jump host</text>'
    )


def _panel(panel: Bars, y: int) -> tuple[list[str], int]:
    figures = [one for _, ours, theirs in panel.bars for one in (ours, theirs) if one is not None]
    widest = max((one.most for one in figures), default=1.0) or 1.0
    drawn = [f'<text class="t" x="20" y="{y + 24}" font-weight="600">{escape(panel.title)}</text>']
    y += _HEAD
    for label, ours, theirs in panel.bars:
        bars = [("o", ours)] if theirs is None else [("o", ours), ("r", theirs)]
        middle = y + len(bars) * _BAR / 2 + 4
        drawn.append(f'<text class="s" x="{_LEFT - 10}" y="{middle:g}" text-anchor="end">{escape(label)}</text>')
        for kind, figure in bars:
            drawn += _bar(kind, figure, panel.unit, y, widest)
            y += _BAR
        y += _GAP
    return drawn, y


def _bar(kind: str, figure: Spread, unit: str, y: int, widest: float) -> list[str]:
    scale = (_WIDTH - _LEFT - _RIGHT) / widest
    middle = y + (_BAR - 3) / 2
    least, most = _LEFT + figure.least * scale, _LEFT + figure.most * scale
    lines = [
        f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{figure.median * scale:.1f}" height="{_BAR - 3}"/>',
        f'<text class="s" x="{most + 8:.1f}" y="{y + 10}">{short(figure.median)} {escape(unit)}</text>',
    ]
    if figure.of > 1:
        lines.insert(1, f'<path class="w" d="M{least:.1f} {middle:g}H{most:.1f}"/>')
    return lines
