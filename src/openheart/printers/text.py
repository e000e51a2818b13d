"""Notation as Unicode text, with the place of every number: outᵢⱼ = selfⱼ + Σₖ mat1ᵢₖ · mat2ₖⱼ."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from openheart.i18n import message
from openheart.printers.glyphs import SUBSCRIPTS, SUPERSCRIPTS
from openheart.printers.notation import (
    Big,
    Box,
    Cases,
    Fence,
    Figure,
    Gathered,
    Mark,
    Root,
    Row,
    Script,
    Style,
)

Span: TypeAlias = "tuple[int, int, str]"


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of characters: its role (for colour), the number it is, how deep a line break before it is."""

    text: str
    role: str = "plain"
    figure: Figure | None = None
    breaks: int | None = None


SPACE = Piece(" ")
_SPACED = re.compile(r" ([+−·]) ")


def pieces(box: Box, style: Style, depth: int = 0) -> Iterator[Piece]:
    """A notation as runs of characters, in reading order."""
    if isinstance(box, Figure):
        yield Piece(box.shown.text(style.decimal), "figure", box)
    elif isinstance(box, Mark):
        yield from _mark(box, depth)
    elif isinstance(box, Row):
        for item in box.items:
            yield from pieces(item, style, depth)
    elif isinstance(box, Fence):
        yield Piece(box.open, "fence")
        yield from pieces(box.body, style, depth + 1)
        yield Piece(box.close, "fence")
    elif isinstance(box, Script):
        yield from _script(box, style, depth)
    elif isinstance(box, Root):
        yield Piece("√", "operator")
        yield from pieces(box.body, style, depth)
    elif isinstance(box, Big):
        yield from _big(box, style, depth)
    elif isinstance(box, Cases):
        yield from _cases(box, style, depth)
    elif isinstance(box, Gathered):
        yield from pieces(box.figure, style, depth)
        yield Piece(f" [{box.words}]", "note")
    else:
        yield from pieces(Fence(box.top), style, depth)
        yield Piece("/", "operator")
        yield from pieces(Fence(box.bottom), style, depth)


def plain(box: Box, style: Style) -> str:
    """A notation as one line of text."""
    return "".join(piece.text for piece in pieces(box, style))


def spans(run: Iterable[Piece]) -> list[Span]:
    """Where the numbers with an address stand: (start, end, address)."""
    found: list[Span] = []
    start = 0
    for piece in run:
        end = start + len(piece.text)
        if piece.figure is not None and piece.figure.address is not None:
            found.append((start, end, piece.figure.address))
        start = end
    return found


def wrap(run: Sequence[Piece], width: int, later: int | None = None) -> list[list[Piece]]:
    """Break a run into lines, before operators, the outermost first.

    The first line has at most `width` characters, and those after it at most `later` (`width` unless given).
    Nothing but the spaces at a break is left out: what is longer than a line is cut.
    """
    lines: list[list[Piece]] = []
    line: list[Piece] = []
    room, used = width, 0
    waiting = deque(run)
    while waiting:
        piece = waiting.popleft()
        if len(piece.text) > room:
            waiting.extendleft(reversed(list(_cut(piece, room))))
            continue
        if line and used + len(piece.text) > room and not (piece.text == " " and used == room):
            at = _best_break(line, piece, room)
            lines.append(_trimmed(line[:at]))
            waiting.extendleft(reversed(_trimmed([*line[at:], piece], left=True)))
            room = width if later is None else later
            line, used = [], 0
            continue
        line.append(piece)
        used += len(piece.text)
    return [*lines, _trimmed(line)] if line or not lines else lines


def _cut(piece: Piece, width: int) -> Iterator[Piece]:
    """A piece that is longer than a line by itself, in pieces that are not."""
    text = piece.text
    while len(text) > width:
        yield replace(piece, text=text[:width])
        text = text[width:]
        piece = replace(piece, figure=None, breaks=None)
    yield replace(piece, text=text)


def _best_break(line: Sequence[Piece], following: Piece, width: int) -> int:
    """Where to break: the shallowest operator in the line's second half, else in the line, else its end."""
    column, places = 0, []
    for at, piece in enumerate([*line, following]):
        if piece.breaks is not None and at:
            places.append((piece.breaks if column >= 0.4 * width else piece.breaks + 10, -at))
        column += len(piece.text)
    return -min(places)[1] if places else len(line)


def _trimmed(line: Sequence[Piece], left: bool = False) -> list[Piece]:
    made = list(line)
    while made and made[-1].text == " " and not left:
        made.pop()
    while made and made[0].text == " " and left:
        made.pop(0)
    return made


def _mark(mark: Mark, depth: int) -> Iterator[Piece]:
    if mark.kind in ("infix", "relation"):
        if mark.spaced:
            yield replace(SPACE, breaks=depth * 2 + (mark.glyph == "·"))
        yield Piece(mark.glyph, mark.kind if mark.kind == "relation" else "operator")
        if mark.spaced:
            yield SPACE
    elif mark.kind == "comma":
        yield Piece(mark.glyph, "operator")
        yield replace(SPACE, breaks=depth * 2)
    else:
        yield Piece(mark.glyph, "operator" if mark.kind in ("prefix", "function") else mark.kind)


def _script(box: Script, style: Style, depth: int) -> Iterator[Piece]:
    yield from pieces(box.base, style, depth)
    if box.sub:
        parts = ["".join(p.text for p in pieces(item, style)) for item in box.sub]
        if all(len(part) == 1 and part in SUBSCRIPTS for part in parts):
            yield Piece("".join(SUBSCRIPTS[part] for part in parts), "index")
        else:
            mark = ";" if style.decimal == "," else ","
            tight = [_SPACED.sub(r"\1", part) for part in parts]
            yield Piece(f"[{mark.join(tight)}]", "index")
    if box.sup is not None:
        run = list(pieces(box.sup, style, depth + 1))
        text = "".join(p.text for p in run)
        if all(c in SUPERSCRIPTS for c in text):
            yield Piece("".join(SUPERSCRIPTS[c] for c in text), run[0].role, run[0].figure)
        else:
            single = len(run) == 1 and not text.startswith("−")
            yield Piece("^" if single else "^(", "operator")
            yield from run
            if not single:
                yield Piece(")", "fence")


def _big(box: Big, style: Style, depth: int) -> Iterator[Piece]:
    yield Piece(box.glyph, "operator")
    over = ["".join(p.text for p in pieces(item, style)) for item in box.over]
    if not box.conditions and all(len(part) == 1 and part in SUBSCRIPTS for part in over):
        yield Piece("".join(SUBSCRIPTS[part] for part in over), "index")
    else:
        yield Piece(f"[{','.join(over)}", "index")
        for n, condition in enumerate(box.conditions):
            yield from _mark(Mark("∧", "infix"), depth + 1) if n else [Piece(": ", "index")]
            yield from pieces(condition, style, depth + 1)
        yield Piece("]", "index")
    yield SPACE


def _cases(box: Cases, style: Style, depth: int) -> Iterator[Piece]:
    yield Piece("{", "fence")
    for n, (value, condition) in enumerate(box.rows):
        if n:
            yield Piece(";", "fence")
            yield replace(SPACE, breaks=depth * 2 + 1)
        yield from pieces(value, style, depth + 1)
        if condition is None:
            yield Piece(f" {message('otherwise', style.lang)}", "word")
        else:
            yield Piece(f" {message('if', style.lang)} ", "word")
            yield from pieces(condition, style, depth + 1)
    yield Piece("}", "fence")
