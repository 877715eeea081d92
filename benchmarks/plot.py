"""Draws the throughput tables: requests per second and added latency, gateway beside relay."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from .stage import CLIENT, RELAY, UPSTREAM
from .table import Table

WIDTH, BAR, GAP, LABELS, VALUES = 760, 18, 6, 240, 120
COLOURS = {RELAY: "#9aa5b1", CLIENT: "#9aa5b1"}
OURS = "#3f51b5"

Bar = tuple[str, float, str]
"""The server's name, the bar's length, and the text after the bar."""


def draw(tables: Sequence[Table], path: Path) -> None:
    """Write the picture as SVG. `tables` are those of `throughput.measure`."""
    panels: list[tuple[str, list[Bar]]] = []
    for table in tables:
        for clients in dict.fromkeys(row[0] for row in table.rows):
            rows = [row for row in table.rows if row[0] == clients and row[1] != UPSTREAM]
            [base] = [float(row[4]) for row in table.rows if row[:2] == (clients, UPSTREAM)]
            words = f"{table.name}, {clients} client{'' if clients == '1' else 's'}"
            rates = [(row[1], float(row[2].replace(",", "")), f"{row[2]}/s") for row in rows]
            added = [(row[1], max(0.0, float(row[4]) - base), f"{float(row[4]) - base:.2f} ms") for row in rows]
            panels += [(f"{words}: requests per second", rates), (f"{words}: added to the median latency", added)]
    height = sum(30 + len(bars) * (BAR + GAP) + 12 for _, bars in panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img"',
        ' aria-label="Gateway and bare relay compared" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    top = 0
    for title, bars in panels:
        parts.append(f'<text x="0" y="{top + 20}" font-weight="bold">{escape(title)}</text>')
        top += 30
        longest = max(length for _, length, _ in bars) or 1.0
        for name, length, value in bars:
            width = (WIDTH - LABELS - VALUES) * length / longest
            parts += [
                f'<text x="{LABELS - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{LABELS}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{COLOURS.get(name, OURS)}"/>',
                f'<text x="{LABELS + width + 6:.1f}" y="{top + 14}">{escape(value)}</text>',
            ]
            top += BAR + GAP
        top += 12
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")
