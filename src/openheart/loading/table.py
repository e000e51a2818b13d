"""Tables of numbers: CSV with or without a header; commas, semicolons or tabs; decimal points or commas."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from openheart.loading.trouble import bad_input

__all__ = ["read_table"]


def read_table(path: Path) -> list[list[float]]:
    """The rows of numbers of a table, without its header; every row is as long as the first.

    A semicolon or tab separates cells when the first line has one, and then a comma may be the decimal mark
    (`2,5;3`); else a comma separates. Without either, blanks do. A first row without a number is a header.

    **Raises** `InputError` for a cell that is no number and for rows of different lengths, and says where.
    """
    text = path.read_text(encoding="utf-8-sig")
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise bad_input("table.empty", file=path)
    first = lines[0][1]
    mark = next((m for m in (";", "\t", ",") if m in first), None)
    rows: list[list[float]] = []
    for position, (number, line) in enumerate(lines):
        cells = line.split() if mark is None else next(csv.reader(io.StringIO(line), delimiter=mark))
        values = [_number(cell) for cell in cells]
        if position == 0 and all(value is None for value in values):
            continue  # the header
        for column, value in enumerate(values, 1):
            if value is None:
                raise bad_input(
                    "table.cell", file=path, line=number, column=column, cell=cells[column - 1].strip()
                )
        if rows and len(values) != len(rows[0]):
            raise bad_input("table.ragged", file=path, line=number, count=len(values), expected=len(rows[0]))
        rows.append([value for value in values if value is not None])
    if not rows:
        raise bad_input("table.empty", file=path)
    return rows


def _number(cell: str) -> float | None:
    cell = cell.strip().replace("−", "-")
    if cell.count(",") == 1:  # the separator never gets here, so it is a decimal comma
        cell = cell.replace(".", "").replace(",", ".")
    try:
        return float(cell)
    except ValueError:
        return None
