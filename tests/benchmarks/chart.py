"""A bar chart as SVG, drawn by hand: it needs no library and looks the same everywhere.

Pure: values in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 860
LABEL_WIDTH = 190
BAR_WIDTH = 520
BAR_HEIGHT = 18
GAP = 5
TITLE_HEIGHT = 34
MARGIN = 16
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.t{font-weight:600}.v{fill:#555}"
    "rect{fill:#9bb4c9}.o{fill:#2f6f9f}.page{fill:#fff}"
    "@media(prefers-color-scheme:dark){.page{fill:#14181c}text{fill:#e6e6e6}.v{fill:#aaa}"
    "rect{fill:#4a6073}.o{fill:#5aa2d6}}"
)
OURS = ("dispatcher", "node")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: whose, how long, and what it says at its end."""

    name: str
    value: float
    text: str


def bars_svg(groups: Mapping[str, Sequence[Bar]]) -> str:
    """Return one group of bars below the other; within a group the longest fills the width."""
    parts: list[str] = []
    top = MARGIN
    for title, bars in groups.items():
        parts.append(f'<text class="t" x="{MARGIN}" y="{top + 18}">{escape(title)}</text>')
        top += TITLE_HEIGHT
        longest = max((bar.value for bar in bars), default=0.0)
        for bar in bars:
            parts.append(_bar(bar, top, longest))
            top += BAR_HEIGHT + GAP
        top += MARGIN
    height = top + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" role="img">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{height}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _bar(bar: Bar, top: int, longest: float) -> str:
    width = max(BAR_WIDTH * bar.value / longest, 1.0) if longest > 0 else 1.0
    kind = ' class="o"' if bar.name in OURS else ""
    left, line = MARGIN + LABEL_WIDTH, top + 14
    return (
        f'<text x="{left - 8}" y="{line}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect{kind} x="{left}" y="{top}" width="{width:.1f}" height="{BAR_HEIGHT}" rx="2"/>'
        f'<text class="v" x="{left + width + 6:.1f}" y="{line}">'
        f"{bar.value:.2f}  {escape(bar.text)}</text>"
    )
