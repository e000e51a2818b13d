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
from openheart.printers.digits import shown
from openheart.printers.json import number
from openheart.printers.layout import SHADES, paragraph, render

if TYPE_CHECKING:
    from openheart.verify import Audit, Tally

WIDTH = 100
VERSION = 1
COLUMNS = (
    ("calls", "audit.calls"),
    ("scalars", "audit.scalars"),
    ("exact", "audit.exact"),
    ("within", "audit.within"),
    ("disagree", "audit.disagrees"),
    ("opaque", "audit.opaques"),
    ("leaves", "audit.leaves"),
    ("worst", "audit.worst"),
)
LAYOUTS: tuple[tuple[str, ...], ...] = (
    ("calls", "scalars", "exact", "within", "disagree", "opaque", "leaves", "worst"),
    ("scalars", "exact", "within", "disagree", "opaque", "leaves", "worst"),
    ("scalars", "exact", "within", "disagree", "opaque", "worst"),
    ("scalars", "exact", "within", "disagree", "opaque"),
    ("scalars", "disagree", "opaque"),
    ("disagree", "opaque"),
)
"""The columns, from a wide terminal's to a narrow one's: the first that leave the names room are taken."""
GAP = 2
ALARMS = {"disagree": "disagrees", "opaque": "opaque"}


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
        "sampled": audit.sampled,
        **{
            name: getattr(audit, name)
            for name in ("scalars", "exact", "within", "disagree", "opaque", "leaves")
        },
        "worst": None
        if audit.worst is None
        else {"ratio": number(audit.worst.ratio), "address": audit.worst.address},
        "by_operator": [{"operator": name, **_tally(row)} for name, row in audit.by_operator.items()],
        "disagreements": [
            {**asdict(d), **{name: number(getattr(d, name)) for name in ("recorded", "computed", "bound")}}
            for d in audit.disagreements
        ],
        "opaque_operators": list(audit.opaque_operators),
    }


def _tally(row: Tally) -> dict[str, Any]:
    return {name: number(getattr(row, name)) for name, _ in COLUMNS}


def summary(audit: Audit, lang: str) -> list[tuple[str, str]]:
    """What the audit found, each sentence with its verdict."""
    if not audit.scalars:
        return [("opaque", message("audit.empty", lang))]
    if audit.ok:
        return [("exact", message("audit.ok.sampled" if audit.sampled else "audit.ok", lang))]
    found = []
    if audit.disagree:
        found.append(("disagrees", message("audit.disagree", lang, count=audit.disagree)))
    if audit.opaque:
        found.append(("opaque", message("audit.opaque", lang, count=audit.opaque)))
    return found


MARKS = {"exact": "✓", "disagrees": "✗", "opaque": "?"}


def _lines(audit: Audit, lang: str, width: int) -> Iterator[Text]:
    for verdict, sentence in summary(audit, lang):
        yield from paragraph(Text.assemble((f"{MARKS[verdict]} {sentence}", SHADES[verdict])), width)
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


def _columns(audit: Audit, names: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """The columns worth printing: no column of zeros but the two that matter most."""
    kept = []
    for name, key in COLUMNS:
        empty = name == "leaves" and not audit.leaves
        if not empty and (names is None or name in names):
            kept.append((name, key))
    return kept


def _table(audit: Audit, lang: str, width: int) -> Iterator[Text]:
    rows = [*audit.by_operator.items(), (message("audit.total", lang), total(audit))]
    longest = max(len(_short(name, width)) for name, _ in rows)
    for names in LAYOUTS:
        columns = _columns(audit, names)
        heads = [message(key, lang) for _, key in columns]
        cells = [[_cell(name, row) for name, _ in columns] for _, row in rows]
        widths = [max(len(h), *(len(c[n]) for c in cells)) for n, h in enumerate(heads)]
        label = width - sum(widths) - GAP * len(widths)
        if label >= min(longest, 24):
            break
    label = max(8, min(label, longest))
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


def _shade(column: str, row: Tally, last: bool) -> str:
    if not getattr(row, column):
        return SHADES["faint"]
    if column in ALARMS:
        return SHADES[ALARMS[column]]
    return "bold" if last else ""


def _short(name: str, width: int) -> str:
    name = name.removeprefix("aten.")
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
    shade = {"exact": "oh-good", "disagrees": "oh-bad", "opaque": "oh-warn"}
    head = "".join(
        f'<span class="oh-verdict {shade[verdict]}">{MARKS[verdict]} {escape(sentence)}</span> '
        for verdict, sentence in summary(audit, spoken)
    )
    body = _html_table(audit, spoken) if audit.by_operator else ""
    if audit.worst is not None:
        said = message(
            "audit.worst.where", spoken, ratio=_ratio(audit.worst.ratio), address=audit.worst.address
        )
        body += f'<p class="oh-more">{escape(said)}</p>'
    if audit.disagreements:
        body += _html_disagreements(audit, spoken)
    return (
        style_tag() if styled else ""
    ) + f'<article class="oh oh-audit" lang="{spoken}"><div class="oh-head">{head}</div>{body}</article>'


def _html_table(audit: Audit, lang: str) -> str:
    columns = _columns(audit)
    heads = "".join(f"<th>{escape(message(key, lang))}</th>" for _, key in columns)
    rows = "".join(
        _html_row(name.removeprefix("aten."), row, columns) for name, row in audit.by_operator.items()
    )
    foot = _html_row(message("audit.total", lang), total(audit), columns)
    first = escape(message("audit.operator", lang))
    return (
        f'<div class="oh-scroll"><table><thead><tr><th>{first}</th>{heads}</tr>'
        f"</thead><tbody>{rows}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def _html_row(name: str, row: Tally, columns: Sequence[tuple[str, str]]) -> str:
    cells = []
    for column, _ in columns:
        shade = ' class="oh-none"' if not getattr(row, column) else ""
        if column in ALARMS and not shade:
            shade = f' class="{"oh-bad" if column == "disagree" else "oh-warn"}"'
        cells.append(f"<td{shade}>{_cell(column, row)}</td>")
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
