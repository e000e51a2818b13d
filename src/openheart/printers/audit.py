"""An audit as text, HTML and data: what was checked, operator by operator, and the worst of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from openheart.i18n import decimal_mark, language, message
from openheart.printers.css import style_tag
from openheart.printers.digits import DIGITS, shown
from openheart.printers.json import nonfinite_dict, number
from openheart.printers.layout import SHADES, flow, paragraph, render
from openheart.printers.parts import ALARM, sentence, style_for

if TYPE_CHECKING:
    from openheart.verify import Audit, Tally

WIDTH = 100
VERSION = 1
COLUMNS = (
    ("calls", "audit.calls"),
    ("scalars", "audit.scalars"),
    ("exact", "audit.exact"),
    ("within", "audit.within"),
    ("unbounded", "audit.unboundeds"),
    ("disagree", "audit.disagrees"),
    ("opaque", "audit.opaques"),
    ("not_checked", "audit.not_checkeds"),
    ("leaves", "audit.leaves"),
    ("nonfinite", "audit.nonfinites"),
    ("worst", "audit.worst"),
)
RARE = frozenset({"unbounded", "not_checked", "leaves", "nonfinite"})
"""Columns that are printed only where there is something in them."""
GAP = 2
UNCHECKED = 3
"""So many tensors that were not checked are named; the others are counted."""
HTML_SHADES = {"exact": "oh-good", "correct": "", "disagrees": "oh-bad"}
ALARMS = {
    "disagree": "disagrees",
    "opaque": "opaque",
    "unbounded": "unbounded",
    "not_checked": "not checked",
    "nonfinite": "nonfinite",
}


def text(audit: Audit, lang: str | None = None, width: int | None = None, color: bool = False) -> str:
    """The audit as text of at most `width` columns (100 unless given)."""
    return render(_lines(audit, language(lang), max(width or WIDTH, 20)), color)


@dataclass(frozen=True, slots=True)
class RichAudit:
    """An audit that rich prints at the console's own width."""

    audit: Audit
    lang: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _lines(self.audit, language(self.lang), min(options.max_width, WIDTH))


def rich_audit(audit: Audit, lang: str | None = None) -> RichAudit:
    """What rich prints for an audit."""
    return RichAudit(audit, lang)


def audit_dict(audit: Audit) -> dict[str, Any]:
    """The audit as plain data for JSON."""
    return {
        "schema": "openheart.audit",
        "version": VERSION,
        "ok": audit.ok,
        "healthy": audit.healthy,
        "sampled": audit.sampled,
        **{
            name: getattr(audit, name)
            for name in (
                *("scalars", "exact", "within", "unbounded", "disagree"),
                *("opaque", "not_checked", "leaves", "nonfinite"),
            )
        },
        "first_nonfinite": nonfinite_dict(audit.first_nonfinite),
        "worst": None
        if audit.worst is None
        else {"ratio": number(audit.worst.ratio), "address": audit.worst.address},
        "by_operator": [{"operator": name, **_tally(row)} for name, row in audit.by_operator.items()],
        "disagreements": [
            {**asdict(d), **{name: number(getattr(d, name)) for name in ("recorded", "computed", "bound")}}
            for d in audit.disagreements
        ],
        "opaque_operators": list(audit.opaque_operators),
        "unbounded_at": [
            {
                **asdict(u),
                **{name: number(getattr(u, name)) for name in ("recorded", "computed", "bound", "digits")},
            }
            for u in audit.unbounded_at
        ],
        "unchecked": [asdict(u) for u in audit.unchecked],
        "wiring": asdict(audit.wiring),
        "notices": [asdict(notice) for notice in audit.notices],
    }


def _tally(row: Tally) -> dict[str, Any]:
    return {name: number(getattr(row, name)) for name, _ in COLUMNS}


def summary(audit: Audit, lang: str) -> list[tuple[str, str]]:
    """What the audit found, each sentence with its verdict."""
    if not audit.by_operator:
        return [("opaque", message("audit.empty", lang))]
    found = [
        (verdict, message(f"audit.{name}", lang, count=count))
        for name, verdict in (
            ("disagree", "disagrees"),
            ("nonfinite", "nonfinite"),
            ("opaque", "opaque"),
            ("not_checked", "not checked"),
            ("unbounded", "unbounded"),
        )
        if (count := getattr(audit, name))
    ]
    if audit.wiring.disagree:
        said = message("audit.wiring.disagree", lang, count=audit.wiring.disagree)
        found.insert(0, ("disagrees", said))
    if audit.infinite:
        found.append(("unbounded", message("audit.unbounded.infinite", lang, count=audit.infinite)))
    if audit.ok:
        said = message("audit.ok.sampled" if audit.sampled else "audit.ok", lang)
        found.append(("correct" if found else "exact", said))
    return found or [("opaque", message("audit.nothing", lang))]


MARKS = {"exact": "✓", "correct": "✓", "disagrees": "✗", "nonfinite": ALARM}
MARKS |= {"opaque": "?", "not checked": "?", "unbounded": "~"}


def details(audit: Audit, lang: str) -> list[str]:
    """Where the first NaN was born, the first empty bound, what was not checked; notices of the run."""
    said = []
    strange = audit.first_nonfinite
    if strange is not None:
        key, params = strange.note
        why = sentence(key, params, style_for(DIGITS, lang, flat=True))
        about = {"number": strange.sign, "address": strange.address, "operator": strange.operator}
        said.append(message("audit.nonfinite.first", lang, **about, why=why))
    for u in audit.unbounded_at[:1]:
        about = {"address": u.address, "operator": u.operator, "recorded": _full(u.recorded)}
        about |= {"bound": _full(u.bound, 1), "digits": _full(u.digits, 1)}
        said.append(message("audit.unbounded.first", lang, **about))
    wiring = audit.wiring
    if wiring.edges:
        said.append(message("audit.wiring", lang, count=wiring.edges))
    if wiring.unknown:
        said.append(message("audit.wiring.unknown", lang, count=wiring.unknown))
    for wrong in wiring.disagreements[:UNCHECKED]:
        about = {"read": wrong.read, "told": wrong.told, "call": wrong.call}
        said.append(message(f"audit.wiring.{wrong.kind}", lang, **about))
    if audit.unchecked:
        listed = ", ".join(
            f"{u.name} ({u.operator}: {message(f'audit.unchecked.{u.reason}', lang)})"
            for u in audit.unchecked[:UNCHECKED]
        )
        rest = len(audit.unchecked) - UNCHECKED
        more = f", {message('more', lang, count=rest)}" if rest > 0 else ""
        said.append(f"{message('audit.unchecked', lang)}: {listed}{more}")
    said += [message("audit.notice", lang, said=notice.text(lang)) for notice in audit.notices]
    return said


def _lines(audit: Audit, lang: str, width: int) -> Iterator[Text]:
    for verdict, said in summary(audit, lang):
        yield from paragraph(Text.assemble((f"{MARKS[verdict]} {said}", SHADES[verdict])), width)
    if not audit.by_operator:
        return
    yield Text()
    yield from _table(audit, lang, width)
    if audit.worst is not None:
        yield Text()
        said = message(
            "audit.worst.where", lang, ratio=_ratio(audit.worst.ratio), address=audit.worst.address
        )
        yield from paragraph(Text(said, SHADES["faint"]), width)
    for said in details(audit, lang):
        yield from paragraph(Text(said, SHADES["note"]), width)
    if audit.disagreements:
        yield Text()
        yield Text(message("audit.disagreements", lang), SHADES["label"])
        for d in audit.disagreements:
            words = (
                f"  {d.address}: {message('check.recorded', lang)} {_full(d.recorded)}, "
                f"{message('check.float64', lang)} {_full(d.computed)}, "
                f"{message('check.bound', lang)} {_full(d.bound, 1)} ({d.operator})"
            )
            yield from paragraph(Text(words), width)


def _columns(audit: Audit) -> list[tuple[str, str]]:
    """The columns worth printing: no column of zeros but the common ones and the two that matter most."""
    return [(name, key) for name, key in COLUMNS if name not in RARE or getattr(audit, name)]


def _table(audit: Audit, lang: str, width: int) -> Iterator[Text]:
    """The counts as a table; where that is too wide, the counts of each operator under its name."""
    rows = [
        *((name.removeprefix("aten."), row) for name, row in audit.by_operator.items()),
        (message("audit.total", lang), total(audit)),
    ]
    columns = _columns(audit)
    heads = [message(key, lang) for _, key in columns]
    cells = [[_cell(name, row) for name, _ in columns] for _, row in rows]
    widths = [max(len(h), *(len(c[n]) for c in cells)) for n, h in enumerate(heads)]
    longest = max(len(name) for name, _ in rows)
    if min(longest, 24) + sum(widths) + GAP * len(widths) > width:
        for (name, row), numbers in zip(rows, cells, strict=True):
            yield from _stacked(name, row, list(zip(columns, heads, numbers, strict=True)), width)
        return
    label = min(longest, width - sum(widths) - GAP * len(widths))
    head = message("audit.operator", lang)[:label].ljust(label)
    yield Text(
        head + "".join(" " * GAP + h.rjust(w) for h, w in zip(heads, widths, strict=True)), SHADES["faint"]
    )
    for n, (name, row) in enumerate(rows):
        last = n == len(rows) - 1
        line = Text(_short(name, label).ljust(label), "bold" if last else "")
        for (column, _), cell, w in zip(columns, cells[n], widths, strict=True):
            shade = _shade(column, row, last)
            line.append(" " * GAP + cell.rjust(w), shade)
        yield line


def _stacked(
    name: str, row: Tally, cells: list[tuple[tuple[str, str], str, str]], width: int
) -> Iterator[Text]:
    """An operator's name, and under it the counts that are not zero."""
    yield from paragraph(Text(name, "bold"), width)
    items = [
        Text.assemble((f"{head} ", SHADES["faint"]), (cell, _shade(column, row, last=False)))
        for (column, _), head, cell in cells
        if getattr(row, column) or column == "scalars"
    ]
    yield from (Text.assemble("  ", line) for line in flow(items, width - 2, gap=2))


def _shade(column: str, row: Tally, last: bool) -> str:
    if not getattr(row, column):
        return SHADES["faint"]
    if column in ALARMS:
        return SHADES[ALARMS[column]]
    return "bold" if last else ""


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def _cell(name: str, row: Tally) -> str:
    return _ratio(row.worst) if name == "worst" else f"{getattr(row, name):,}".replace(",", "\u202f")


def _ratio(ratio: float) -> str:
    return shown(float(ratio), 3).text(decimal_mark()) if ratio else "0"


def _full(value: Any, digits: int = 9) -> str:
    return shown(value, digits).text(decimal_mark())


def total(audit: Audit) -> Tally:
    """The sums over all operators, as one row."""
    first = next(iter(audit.by_operator.values()))
    made = type(first)()
    for row in audit.by_operator.values():
        for name, _ in COLUMNS:
            both = getattr(made, name), getattr(row, name)
            setattr(made, name, max(both) if name == "worst" else sum(both))
    return made


def audit_html(audit: Audit, lang: str | None = None, *, styled: bool = True) -> str:
    """The audit as an HTML fragment that needs nothing else."""
    spoken = language(lang)
    head = "".join(
        f'<span class="oh-verdict {HTML_SHADES.get(verdict, "oh-warn")}">'
        f"{MARKS[verdict]} {escape(said)}</span> "
        for verdict, said in summary(audit, spoken)
    )
    body = _html_table(audit, spoken) if audit.by_operator else ""
    if audit.worst is not None:
        said = message(
            "audit.worst.where", spoken, ratio=_ratio(audit.worst.ratio), address=audit.worst.address
        )
        body += f'<p class="oh-more">{escape(said)}</p>'
    body += "".join(f'<p class="oh-more">{escape(said)}</p>' for said in details(audit, spoken))
    if audit.disagreements:
        body += _html_disagreements(audit, spoken)
    return (
        style_tag() if styled else ""
    ) + f'<article class="oh oh-audit" lang="{spoken}"><div class="oh-head">{head}</div>{body}</article>'


def _html_table(audit: Audit, lang: str) -> str:
    columns = _columns(audit)
    heads = "".join(f"<th>{escape(message(key, lang))}</th>" for _, key in columns)
    words = [escape(message(key, lang), quote=True) for _, key in columns]
    rows = "".join(
        _html_row(name.removeprefix("aten."), row, columns, words) for name, row in audit.by_operator.items()
    )
    foot = _html_row(message("audit.total", lang), total(audit), columns, words)
    first = escape(message("audit.operator", lang))
    return (
        f'<div class="oh-scroll"><table class="oh-tally"><thead><tr><th>{first}</th>{heads}</tr>'
        f"</thead><tbody>{rows}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def _html_row(name: str, row: Tally, columns: Sequence[tuple[str, str]], words: Sequence[str]) -> str:
    cells = []
    for (column, _), word in zip(columns, words, strict=True):
        shade = ' class="oh-none"' if not getattr(row, column) else ""
        if column in ALARMS and not shade:
            shade = f' class="{"oh-bad" if column == "disagree" else "oh-warn"}"'
        cells.append(f'<td{shade} data-word="{word}">{_cell(column, row)}</td>')
    return f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>"


def _html_disagreements(audit: Audit, lang: str) -> str:
    keys = ("audit.address", "audit.operator", "check.recorded", "check.float64", "check.bound")
    heads = "".join(f"<th>{escape(message(key, lang))}</th>" for key in keys)
    rows = "".join(
        f'<tr><td><span class="oh-address">{escape(d.address)}</span></td><td>{escape(d.operator)}</td>'
        f"<td>{_full(d.recorded)}</td><td>{_full(d.computed)}</td><td>{_full(d.bound, 1)}</td></tr>"
        for d in audit.disagreements
    )
    return f'<div class="oh-scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
