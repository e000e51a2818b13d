"""An explanation as plain data for JSON, as `docs/explanation.schema.json` describes it.

Numbers stand twice: `value` in full, and `text`, the digits that this printing shows. A number that JSON
cannot say is a string ("nan", "inf", "-inf") or, when complex, `{"re": …, "im": …}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from openheart.formula.expr import (
    Apply,
    Definition,
    Expr,
    Index,
    Leaf,
    Named,
    Number,
    Reduce,
    Ref,
    Scalar,
    Tensor,
)
from openheart.formula.instance import Line, Rest, Slot, Terms
from openheart.printers import parts
from openheart.printers.digits import DIGITS
from openheart.printers.honesty import printed, relation
from openheart.printers.notation import free
from openheart.printers.notation import parts as named_parts

if TYPE_CHECKING:
    from openheart.explain import Explanation
    from openheart.nonfinite import NonFinite

VERSION = 1


def explanation_dict(explanation: Explanation, digits: int = DIGITS) -> dict[str, Any]:
    """The explanation as dicts, lists, strings and numbers; nothing in it depends on the language."""
    call = explanation.call
    check = parts.check_numbers(explanation, digits)
    rows, more = parts.contributions(explanation)
    return {
        "schema": "openheart.explanation",
        "version": VERSION,
        "digits": digits,
        "address": explanation.address,
        "kind": explanation.kind,
        "value": number(explanation.value),
        "check": {
            "verdict": explanation.verdict,
            "computed": None if explanation.computed is None else number(explanation.computed),
            "difference": None if explanation.error is None else number(explanation.error),
            "bound": None if explanation.bound is None else number(explanation.bound),
            "digits_left": None if explanation.digits_left is None else number(explanation.digits_left),
            "text": {
                "recorded": check.recorded.text(),
                "computed": check.float64.text() if check.float64 else None,
            },
        },
        "nonfinite": nonfinite_dict(explanation.nonfinite),
        "call": None
        if call is None
        else {
            "operator": explanation.operator,
            "overload": explanation.overload,
            "phase": explanation.phase,
            "scope": explanation.scope,
            "source": explanation.source,
            "step": explanation.step,
        },
        "law": _law(explanation),
        "lines": [_line(line, digits) for line in explanation.lines],
        "steps": [
            {"line": _line(line, digits), "verdict": step.verdict}
            for step in explanation.steps
            for line in step.lines[-1:]
        ],
        "contributions": {"terms": [_contribution(row) for row in rows], "more": more},
        "sources": [{"address": a, "value": number(v)} for a, v in parts.sources(explanation).items()],
        "notes": [{"key": note.key, "params": _params(note.params, digits)} for note in explanation.notes],
        "inputs": [explanation_dict(child, digits) for child in explanation.inputs],
    }


def number(value: Scalar) -> Any:
    """A number as JSON can say it."""
    if isinstance(value, complex):
        return {"re": number(value.real), "im": number(value.imag)}
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def nonfinite_dict(found: NonFinite | None) -> dict[str, Any] | None:
    """How a NaN or an infinity came about; None for a finite number."""
    if found is None:
        return None
    return {
        "number": found.number,
        "cause": found.cause,
        "address": found.address,
        "operator": found.operator,
        "source": found.source,
        "function": found.function,
        "computed": None if found.computed is None else number(found.computed),
        "largest": found.largest,
    }


def _law(explanation: Explanation) -> dict[str, Any] | None:
    law = explanation.law
    if law is None:
        return None
    return {
        "output": law.output.name,
        "indices": [_index(i) for i in law.indices],
        "formula": tree(law.expr),
        "parts": [_part(part) for part in named_parts(law.expr)],
        "arguments": [{"name": name, "address": address} for name, address in explanation.arguments],
        "source": law.rule.source,
    }


def _part(part: Named | Definition) -> dict[str, Any]:
    return {"name": part.name, "indices": [_index(i) for i in free(part)], "formula": tree(part.body)}


def _index(index: Index) -> dict[str, Any]:
    return {"name": index.name, "extent": index.extent}


def _params(params: Mapping[str, Any], digits: int) -> dict[str, Any]:
    return {
        name: tree(value, digits)
        if isinstance(value, Expr)
        else number(value)
        if isinstance(value, (float, complex))
        else value
        for name, value in params.items()
    }


def _line(line: Line, digits: int) -> dict[str, Any]:
    result = Slot(line.result)
    return {
        "name": line.name,
        "instance": tree(line.instance, digits),
        "relation": relation(line, digits),
        "result": {"value": number(line.result), "text": printed(result, digits).text()},
    }


def _contribution(row: parts.Contribution) -> dict[str, Any]:
    return {
        "value": number(row.value),
        "share": number(row.share),
        "factors": [{"address": address, "value": number(value)} for address, value in row.factors],
    }


def tree(node: Expr, digits: int | None = None) -> dict[str, Any]:
    """A formula or an instance as nested dicts, told apart by `node`; given `digits`, numbers have a text."""
    if isinstance(node, (Number, Slot, Rest)):
        return _leaf(node, digits)
    if isinstance(node, Index):
        return {"node": "index", "name": node.name}
    if isinstance(node, Ref):
        kind = "tensor" if isinstance(node.tensor, Tensor) else "definition"
        return {"node": "element", kind: node.tensor.name, "index": [tree(i) for i in node.index]}
    if isinstance(node, Named):
        return {"node": "part", "name": node.name}
    if isinstance(node, Leaf):
        return {"node": "leaf", "kind": node.kind}
    if isinstance(node, Apply):
        return {"node": "apply", "function": node.function, "args": [tree(arg, digits) for arg in node.args]}
    if isinstance(node, Reduce):
        return {
            "node": "reduce",
            "kind": node.kind,
            "over": [_index(i) for i in node.over],
            "body": tree(node.body),
            "where": None if node.where is None else tree(node.where),
        }
    if not isinstance(node, Terms):
        raise TypeError(f"no JSON for a {type(node).__name__}")
    return {
        "node": "terms",
        "kind": node.kind,
        "items": [tree(item, digits) for item in node.items],
        "rest": None if node.rest is None else tree(node.rest, digits),
        "count": node.count,
    }


def _leaf(node: Number | Slot | Rest, digits: int | None) -> dict[str, Any]:
    made: dict[str, Any] = {"node": "number", "value": number(node.value)}
    if digits is not None:
        made["text"] = printed(node, digits).text()
    if isinstance(node, Rest):
        return {**made, "node": "rest", "count": node.count}
    if isinstance(node, Slot) and node.address is not None:
        made["address"] = node.address
    if node.name is not None:
        made["name"] = node.name
    return made
