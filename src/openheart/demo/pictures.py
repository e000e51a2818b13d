"""What the tour draws: a tiny network as columns of numbers, a digit in blocks beside its bars."""

from __future__ import annotations

from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from openheart.i18n import decimal_mark
from openheart.printers.digits import shown
from openheart.printers.layout import bar
from openheart.recording import Recording

__all__ = ["columns_of", "picture_beside"]

INK = " ░▒▓█"


def columns_of(rec: Recording, names: tuple[str, ...]) -> Table:
    """A tiny network as columns of numbers, from left to right: the first sample's values of each tensor."""
    table = Table.grid(padding=(0, 3))
    heads, cells = [], []
    for n, name in enumerate(names):
        table.add_column(justify="right", vertical="middle")
        if n < len(names) - 1:
            table.add_column(justify="center", vertical="middle")
        values = [shown(v, 4).text(decimal_mark()) for v in rec.value(name).array[0].tolist()]
        heads.append(Text(name, "cyan"))
        cells.append(Text("\n".join(values), "bold", justify="right"))
        if n < len(names) - 1:
            heads.append(Text(""))
            cells.append(Text("──▶", "dim"))
    table.add_row(*heads)
    table.add_row(*cells)
    return table


def picture_beside(image: torch.Tensor, probabilities: Any, labels: tuple[str, ...]) -> Table:
    """The digit in blocks, (H, W) from 0 (paper) to 1 (ink), beside a bar for each class's probability."""
    levels = len(INK) - 1
    rows = ["".join(2 * INK[min(levels, round(ink * levels))] for ink in line) for line in image.tolist()]
    table = Table.grid(padding=(0, 4))
    drawn = Text(
        "\n".join(["┌" + "─" * len(rows[0]) + "┐", *(f"│{r}│" for r in rows), "└" + "─" * len(rows[0]) + "┘"])
    )
    best = int(probabilities.argmax())
    bars = []
    for n, (label, p) in enumerate(zip(labels, probabilities.tolist(), strict=True)):
        number = shown(p, 4).text(decimal_mark())
        bars.append(Text.assemble((label, "bold" if n == best else "dim"), f"  {number:>10}  ", bar(p, 24)))
    table.add_row(drawn, Text("\n").join(bars))
    return table
