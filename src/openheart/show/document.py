"""The document: title, verdict, modules, numbers phase by phase, audit, and a sheet behind each number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openheart.i18n import message
from openheart.origins import made_by
from openheart.printers.audit import audit_html
from openheart.printers.css import style_tag
from openheart.printers.digits import shown
from openheart.printers.html import explanation_html
from openheart.printers.page import document as html_document
from openheart.printers.parts import ALARM, verdict
from openheart.recording import Element
from openheart.show.drawing import drawing
from openheart.show.maps import link, tensor_html
from openheart.show.modules import grouped, modules_table, shape_of
from openheart.show.selection import main_output, named_values, selected
from openheart.spelling import harmless

if TYPE_CHECKING:
    from openheart.explain import Explanation
    from openheart.recording import Recording, Value
    from openheart.verify import Audit

__all__ = ["document"]

QUICK = 4_000_000
"""A run with more numbers than this is sampled by the page's audit."""
SAMPLE = 100
CELLS = 240_000
"""How many squares the heat maps of a page may have in all; each gets an equal share of them."""


@dataclass(frozen=True, slots=True)
class _Page:
    rec: Recording
    lang: str
    digits: int
    labels: tuple[str, ...]
    explained: Mapping[str, Explanation]
    cells: int

    def word(self, key: str, **params: Any) -> str:
        """A sentence, ready for HTML."""
        return escape(message(f"show.{key}", self.lang, **params))


def document(
    rec: Recording, lang: str, *, title: str | None, story: str, labels: tuple[str, ...], digits: int
) -> str:
    """The whole page as HTML."""
    explained = selected(rec)
    values = list(named_values(rec))
    own = [(name, value) for name, value in values if rec.has_own_name(value)]
    cells = max(512, min(4096, CELLS // max(1, len(own))))
    page = _Page(rec, lang, digits, labels, explained, cells)
    scalars = sum(math.prod(v.shape) for c in rec.calls for v in c.outputs)
    audit = rec.verify(sample=SAMPLE if scalars > QUICK else None)
    story, labels = harmless(story), tuple(map(harmless, labels))
    heading = title or (type(rec.model).__name__ if rec.model is not None else message("show.run", lang))
    heading = harmless(heading)
    body = "".join(
        (
            _head(page, heading, story, audit),
            _opened(page),
            _section(page, "modules", drawing(rec, explained, digits) + modules_table(rec, lang)),
            *(_section(page, key, _cards(page, group)) for key, group in _grouped(page, own) if group),
            _section(page, "audit", audit_html(audit, lang, styled=False)),
            f"<footer><p>{escape(message('page.made', lang))}</p></footer>",
            *(_sheet(page, e) for e in explained.values()),
        )
    )
    style = style_tag("page", "fragment") + f"<style>{_css()}</style>"
    return html_document(f"{heading} · openheart", style, body, lang)


def _css() -> str:
    source = (Path(__file__).parent / "show.css").read_text(encoding="utf-8")
    return re.sub(
        r"\s*([{};])\s*", r"\1", re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL))
    )


# Sections ------------------------------------------------------------------------------------------


def _head(page: _Page, title: str, story: str, audit: Audit) -> str:
    shade, mark, said = _verdict(page, audit)
    told = f'<p class="oh-story">{escape(story)}</p>' if story else ""
    return (
        f'<header class="oh-title"><p class="oh-brand">openheart</p><h1>{escape(title)}</h1>{told}'
        f'<p><a class="oh-verdict {shade}" href="#section:audit">{mark} {said}</a></p></header>'
    )


def _verdict(page: _Page, audit: Audit) -> tuple[str, str, str]:
    """The worst that the audit found: its colour, its mark, its sentence."""
    for name, shade in (
        ("disagree", "oh-bad"),
        ("nonfinite", "oh-warn"),
        ("opaque", "oh-warn"),
        ("not_checked", "oh-warn"),
        ("unbounded", "oh-warn"),
    ):
        found = getattr(audit, name)
        if found:
            mark = {"disagree": "✗", "nonfinite": ALARM, "unbounded": "~"}.get(name, "?")
            count = found if found == 1 or name == "disagree" else grouped(found)
            return shade, mark, page.word(name, count=count)
    if not audit.ok:
        return "oh-warn", "?", page.word("nothing")
    return "oh-good", "✓", page.word("ok.sampled" if audit.sampled else "ok", count=grouped(audit.scalars))


def _section(page: _Page, key: str, body: str) -> str:
    about = f'<p class="page-intro">{page.word(f"{key}.about")}</p>'
    heading = f"<h2>{page.word(key)}</h2>"
    return f'<section class="oh-section" id="section:{key}">{heading}{about}{body}</section>\n'


def _opened(page: _Page) -> str:
    """The run's main number, opened from the start."""
    output = main_output(page.rec)
    same = [e for e in page.explained.values() if e.element.value is output and not any(e.element.index[:-1])]
    if not same:
        return ""
    best = max(same, key=lambda e: _size(e.value))
    return _section(
        page, "opened", _linked(page, explanation_html(best, page.digits, page.lang, styled=False))
    )


def _size(number: Any) -> float:
    size = float(number.real if isinstance(number, complex) else number)
    return size if math.isfinite(size) else -math.inf


def _grouped(
    page: _Page, values: Sequence[tuple[str, Value]]
) -> Iterator[tuple[str, list[tuple[str, Value]]]]:
    """The run's tensors by what they are, in the order in which a run makes them."""
    rec = page.rec
    groups: dict[str, list[tuple[str, Value]]] = {
        "given": [], "forward": [], "loss": [], "backward": [], "optimizer": [], "parameters": []
    }  # fmt: skip
    for name, value in values:
        made = rec.maker(value)
        if made is None:
            group = "parameters" if value.origin in ("parameter", "buffer") else "given"
            if value.origin == "constant":
                continue
        else:
            group = made[0].phase
            if group == "backward" and ".grad" not in name:
                continue
        groups[group].append((name, value))
    tiny = sum(math.prod(v.shape) for _, v in groups["parameters"]) <= 200
    order = ["given", "parameters", "forward"] if tiny else ["given", "forward"]
    order += ["loss", "backward", "optimizer"] + ([] if tiny else ["parameters"])
    for key in order:
        yield key, groups[key]


def _cards(page: _Page, group: Sequence[tuple[str, Value]]) -> str:
    made = []
    for name, value in group:
        body = tensor_html(name, value, page.explained, page.digits, page.cells, page.lang)
        maker: Any = page.rec.maker(value)
        # The call that computed the numbers, not the one that moved them here.
        if maker is not None and 0 not in value.shape:
            maker = made_by(page.rec, Element(value, (0,) * len(value.shape)))
        how = maker[0].name if maker is not None else message(f"kind.{value.origin}", page.lang)
        made.append(
            f'<div class="oh oh-card" id="tensor:{escape(name, quote=True)}"><div class="oh-card-head">'
            f'<span class="oh-address">{escape(name)}</span>'
            f'<span class="oh-faint">{shape_of(value)} · {escape(how)}</span>'
            f"</div>{body}{_classes(page, name, value)}</div>"
        )
    return f'<div class="oh-cards">{"".join(made)}</div>'


def _classes(page: _Page, name: str, value: Value) -> str:
    """What the output's classes are called, for the network's own output."""
    output = page.rec.get("output")
    few = 1 < len(page.labels) <= 12
    if (
        output is None
        or value is not output
        or not few
        or not value.shape
        or value.shape[-1] != len(page.labels)
    ):
        return ""
    rows = value.array.reshape(-1, len(page.labels))
    best = page.labels[int(rows[0].argmax())]
    index = ",".join([*("0" * (len(value.shape) - 1)), str(int(rows[0].argmax()))])
    return f'<p class="oh-extremes">{page.word("class", label=best, address=f"{name}[{index}]")}</p>'


def _sheet(page: _Page, explanation: Explanation) -> str:
    """An explanation that lies behind the page until its address is the page's target."""
    address = explanation.address
    close = (
        f'<a class="oh-close" href="#_" aria-label="{page.word("close")}" title="{page.word("close")}">×</a>'
    )
    body = _linked(page, explanation_html(explanation, page.digits, page.lang, styled=False))
    _, mark, _ = verdict(explanation, page.lang)
    value = shown(explanation.value, page.digits).text()
    label = escape(f"{address} = {value} {mark}", quote=True)
    place = escape(address, quote=True)
    return f'<aside class="oh-sheet" id="{place}" aria-label="{label}">{close}{body}</aside>\n'


_ADDRESS = re.compile(r'<span class="oh-address">([^<]*)</span>')


def _linked(page: _Page, fragment: str) -> str:
    """Addresses whose explanation is on the page become links: one can walk on."""

    def linked(found: re.Match[str]) -> str:
        address = unescape(found.group(1))
        if address not in page.explained:
            return found.group(0)
        return f'<a class="oh-address" href="{link(address)}">{found.group(1)}</a>'

    return _ADDRESS.sub(linked, fragment)
