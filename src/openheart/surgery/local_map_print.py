"""A local map as text, HTML and data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from rich.text import Text

from openheart.i18n import language, message
from openheart.printers.css import style_tag
from openheart.printers.html import SHADES as HTML_SHADES
from openheart.printers.json import number
from openheart.printers.layout import SHADES, block, paragraph, render, ruled
from openheart.printers.parts import VERDICTS
from openheart.surgery.affine_print import (
    MARKS,
    STYLE,
    figures,
    html_matrix,
    html_table,
    matrix_lines,
    more_rows,
    proof_rows,
    shape_text,
    table_lines,
)

if TYPE_CHECKING:
    from openheart.surgery.local_map import LocalMap

WIDTH = 100
LABELS = 12
SHOWN = 12
"""At most this many outputs, features or units are listed."""
VERSION = 1


def text(found: LocalMap, digits: int = 4, lang: str | None = None) -> str:
    """The map beside what the network gave, which units are on, and how far each input can move."""
    return render(list(_lines(found, digits, language(lang))))


def _lines(found: LocalMap, digits: int, lang: str) -> Iterator[Text]:
    yield from ruled(Text(_title(found, lang)), Text(_shapes(found), SHADES["faint"]), WIDTH)
    yield Text()
    yield from block("W", matrix_lines(found.weight, digits), LABELS)
    yield from block("b", matrix_lines(found.bias, digits), LABELS)
    yield Text()
    body = [*table_lines(_proof_heads(lang), proof_rows(found.rows(SHOWN), digits))]
    body += _rest(len(found.bias) - SHOWN, lang)
    yield from block(message("collapse.proof", lang), body, LABELS)
    states = unit_words(found, lang)
    if states:
        yield Text()
        yield from block(message("local_map.units", lang), [Text(s) for s in states], LABELS)
    if found.nearest is not None:
        yield Text()
        body = [*table_lines(_heads(lang), _rows(found, digits, lang))]
        body += _rest(len(found.boundaries) - SHOWN, lang)
        yield from block(message("local_map.boundaries", lang), body, LABELS)
    yield Text()
    shade = SHADES[found.verdict if found.verdict == "disagrees" else "exact"]
    yield Text(f"{MARKS[found.verdict]} {verdict_words(found, lang)}", shade)
    for sentence in frontier_words(found, digits, lang):
        for line in paragraph(Text(sentence), WIDTH - 2):
            yield Text.assemble("  ", line)


def _title(found: LocalMap, lang: str) -> str:
    return message("local_map.title", lang, sample=found.sample)


def _shapes(found: LocalMap) -> str:
    return f"{found.source} {shape_text(found.in_shape)} → {found.target} {shape_text(found.out_shape)}"


def _rest(count: int, lang: str) -> list[Text]:
    return [Text(more_rows(count, lang), SHADES["faint"])] if count > 0 else []


def _proof_heads(lang: str) -> list[str]:
    keys = (
        "collapse.output",
        "local_map.recorded",
        "collapse.composed",
        "collapse.difference",
        "collapse.bound",
    )
    return [*(message(key, lang) for key in keys), ""]


def _heads(lang: str) -> list[str]:
    keys = ("feature", "value", "minus", "flips", "plus", "flips")
    return [message(f"local_map.{key}", lang) for key in keys]


def _rows(found: LocalMap, digits: int, lang: str) -> list[list[str]]:
    """The features whose boundaries are nearest come first where not all are listed."""
    never = message("local_map.never", lang)
    listed = list(found.boundaries)
    if len(listed) > SHOWN:
        listed = sorted(listed, key=lambda b: min(b.minus, b.plus))[:SHOWN]

    def far(distance: float) -> str:
        return figures(distance, digits) if math.isfinite(distance) else never

    return [
        [
            b.address,
            figures(b.value, digits),
            far(b.minus),
            b.minus_unit or "",
            far(b.plus),
            b.plus_unit or "",
        ]
        for b in listed
    ]


def unit_words(found: LocalMap, lang: str) -> list[str]:
    """For each tensor of units, how many are on, or how many on each piece."""
    said = []
    for name, states in found.active.items():
        count = states.numel()
        if states.dtype.is_floating_point or states.dtype.itemsize > 1:
            pieces = ", ".join(
                str(int((states == n).sum())) for n in range(int(states.max()) + 1 if count else 0)
            )
            said.append(message("local_map.pieces", lang, name=name, count=count, pieces=pieces))
        else:
            on = message("local_map.on", lang, on=int(states.sum()), count=count)
            marks = (
                "  " + "".join("●" if s else "○" for s in states.reshape(-1).tolist()) if count <= 40 else ""
            )
            said.append(f"{name}: {on}{marks}")
    for name, states in found.winners.items():
        said.append(message("local_map.largest", lang, name=name, count=states.numel()))
    return said


def verdict_words(found: LocalMap, lang: str) -> str:
    """The verdict in a sentence."""
    return message(f"local_map.verdict.{VERDICTS[found.verdict][0].rpartition('.')[2]}", lang)


def frontier_words(found: LocalMap, digits: int, lang: str) -> Iterator[str]:
    """Where the nearest boundary is, and which units are on theirs."""
    if found.nearest is None:
        yield message("local_map.no_boundary", lang)
    elif found.nearest.distance > 0:
        distance = figures(found.nearest.distance, digits)
        yield message("local_map.nearest", lang, distance=distance, unit=found.nearest.unit)
    if found.on_boundary:
        units = ", ".join(found.on_boundary[:SHOWN]) + (" …" if len(found.on_boundary) > SHOWN else "")
        yield message("local_map.on_boundary", lang, count=len(found.on_boundary), units=units)


def html(found: LocalMap, digits: int = 4, lang: str | None = None) -> str:
    """The same as an HTML fragment."""
    spoken = language(lang)

    def part(label: str, body: str) -> str:
        return f'<section class="oh-part"><h4>{escape(label)}</h4><div>{body}</div></section>'

    def rest(count: int) -> str:
        return f'<p class="oh-more">{escape(more_rows(count, spoken))}</p>' if count > 0 else ""

    sections = part("W", html_matrix(found.weight, digits)) + part("b", html_matrix(found.bias, digits))
    table = html_table(_proof_heads(spoken), proof_rows(found.rows(SHOWN), digits))
    sections += part(message("collapse.proof", spoken), table + rest(len(found.bias) - SHOWN))
    states = "".join(f"<p>{escape(said)}</p>" for said in unit_words(found, spoken))
    if states:
        sections += part(message("local_map.units", spoken), states)
    if found.nearest is not None:
        table = html_table(_heads(spoken), _rows(found, digits, spoken), (3, 5))
        sections += part(message("local_map.boundaries", spoken), table + rest(len(found.boundaries) - SHOWN))
    why = verdict_words(found, spoken)
    word = message(VERDICTS[found.verdict][0], spoken)
    notes = "".join(f"<p>{escape(s)}</p>" for s in (why, *frontier_words(found, digits, spoken)))
    return (
        f'{style_tag()}{STYLE}<article class="oh oh-affine" lang="{spoken}"><div class="oh-head">'
        f"<h3>{escape(_title(found, spoken))}</h3>"
        f'<span class="oh-verdict {HTML_SHADES[found.verdict]}" title="{escape(why, quote=True)}">'
        f"{MARKS[found.verdict]} {escape(word)}</span></div>"
        f'<p class="oh-origin">{escape(_shapes(found))}</p>{sections}'
        f'<div class="oh-notes">{notes}</div></article>'
    )


def to_dict(found: LocalMap) -> dict[str, Any]:
    """Plain data; a distance that has no end is the string "inf"."""
    names = ("weight", "bias", "input", "output", "composed", "difference", "bounds")
    return {
        "schema": "openheart.local_map",
        "version": VERSION,
        "sample": found.sample,
        "source": found.source,
        "target": found.target,
        "in_shape": list(found.in_shape),
        "out_shape": list(found.out_shape),
        "verdict": found.verdict,
        "bound": number(found.bound),
        **{name: _lists(getattr(found, name)) for name in names},
        "active": {name: states.tolist() for name, states in found.active.items()},
        "winners": {name: states.tolist() for name, states in found.winners.items()},
        "boundaries": [
            {
                "address": b.address,
                "value": number(b.value),
                "minus": number(b.minus),
                "minus_unit": b.minus_unit,
                "plus": number(b.plus),
                "plus_unit": b.plus_unit,
            }
            for b in found.boundaries
        ],
        "nearest": None
        if found.nearest is None
        else {"distance": number(found.nearest.distance), "unit": found.nearest.unit},
        "on_boundary": list(found.on_boundary),
    }


def _lists(tensor: Any) -> Any:
    def said(part: Any) -> Any:
        return [said(each) for each in part] if isinstance(part, list) else number(part)

    return said(tensor.tolist())
