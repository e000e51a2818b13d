"""The table of a run's modules: what each is, which operators it ran, what went in and came out."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from openheart.i18n import message
from openheart.origins import moved_from
from openheart.show.maps import link
from openheart.spelling import shown_whole, spelled

if TYPE_CHECKING:
    from openheart.recording import Call, Recording, Value

__all__ = ["grouped", "modules_table", "shape_of"]


def modules_table(rec: Recording, lang: str) -> str:
    """Each module that ran: what it is, its operators, what went in and out, how many parameters it holds."""
    modules = rec.model.named_modules() if rec.model is not None else ()
    known = {spelled(path): module for path, module in modules}
    ran: dict[str, dict[str, bool]] = {}
    for call in rec.calls:
        if call.phase == "forward" and call.step == 0:
            ran.setdefault(call.scope, {}).setdefault(call.name, _only_moves(rec, call))
    rows = []
    paths = [p for p in known if p in ran or rec.get(f"{p}.out") is not None] if known else list(ran)
    for path in paths:
        module = known.get(path)
        leaf = module is None or not any(True for _ in module.children())
        if not leaf and not ran.get(path) and path:
            continue
        out = rec.get(f"{path}.out") or (rec.get("output") if not path else None)
        into = rec.get(f"{path}.in") or (rec.get("input") if not path else None)
        held = sum(p.numel() for p in module.parameters(recurse=leaf)) if module is not None else 0
        rows.append(
            "<tr>"
            f'<th scope="row">{_tensor_link(rec, f"{path}.out", path or message("show.root", lang))}</th>'
            f"<td>{escape(_described(module))}</td>"
            f'<td class="oh-ops">{_operators(ran.get(path, {}))}</td>'
            f'<td class="oh-shape">{shape_of(into)} → {shape_of(out)}</td>'
            f'<td class="oh-count">{grouped(held) if held else "–"}</td>'
            "</tr>"
        )
    heads = "".join(
        f'<th scope="col"{c}>{escape(message(f"show.column.{key}", lang))}</th>'
        for key, c in (
            ("module", ""),
            ("kind", ""),
            ("operators", ""),
            ("shapes", ""),
            ("parameters", ' class="oh-count"'),
        )
    )
    return (
        '<div class="oh oh-flat"><div class="oh-scroll"><table class="oh-modules">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _operators(ran: Mapping[str, bool]) -> str:
    """The operators that computed something, or else those that moved numbers; a name may break at `_`."""
    names = [name for name, moves in ran.items() if not moves] or list(ran)
    return " · ".join(escape(name).replace("_", "_<wbr>") for name in names) or "–"


def _only_moves(rec: Recording, call: Call) -> bool:
    """Whether a call computes nothing: it only shows numbers in another order or shape."""
    out = call.outputs[0] if call.outputs else None
    return out is None or 0 in out.shape or moved_from(rec, call, 0, (0,) * len(out.shape)) is not None


def _described(module: Any) -> str:
    """What a module is, shorter than its repr: `Linear(64 → 10)`, `Conv2d(1 → 8, 3 × 3)`."""
    if module is None:
        return "–"
    kind = shown_whole(type(module).__name__)
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return f"{kind}({module.in_features} → {module.out_features})"
    if hasattr(module, "in_channels") and hasattr(module, "kernel_size"):
        size = " × ".join(map(str, module.kernel_size))
        return f"{kind}({module.in_channels} → {module.out_channels}, {size})"
    said = "" if any(True for _ in module.children()) else module.extra_repr()
    return f"{kind}({said})" if said and len(said) <= 32 else kind


def shape_of(value: Value | None) -> str:
    """A shape as one says it: `4 × 1 × 8 × 8`."""
    return "–" if value is None else " × ".join(map(str, value.shape)) or "1"


def _tensor_link(rec: Recording, name: str, said: str) -> str:
    value = rec.get(name)
    if value is None:
        return escape(said)
    return f'<a href="{link("tensor:" + rec.name(value))}">{escape(said)}</a>'


def grouped(count: int) -> str:
    """12 345: a count that one can read."""
    return f"{count:,}".replace(",", "\u202f")
