"""Reductions as JavaScript loops: sums, extremes and their places, scatters; where their results are kept."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openheart.formula.expr import (
    Apply,
    Expr,
    Index,
    Named,
    Number,
    Reduce,
    Ref,
    Tensor,
    walk,
)
from openheart.formula.folds import FOLDS, matches
from openheart.formula.functions import ASIDE, COMPUTED_IN
from openheart.formula.javascript_blocks import UNITS, Block, Guard, conjuncts
from openheart.formula.javascript_rows import (
    COMPARE,
    SUM,
    Operand,
    truth,
    within,
    write,
)

if TYPE_CHECKING:
    from openheart.formula.javascript_writer import Writer


def staged(w: Writer, node: Reduce, home: Block) -> Operand | None:
    """A reduction as an array of its own: a scatter, or one that the loops around would repeat."""
    found = matches(node, {i: 0 for i in node.free if i.extent == 1}) if node.kind in FOLDS else None
    around = [b for b in home.up() if b.bound]
    base = next(b for b in home.up() if b.base)
    outside = {i for b in base.up() for i in b.bound}
    met = dict.fromkeys(part for part in walk(node) if isinstance(part, Index))
    free = [i for i in met if i in node.free and i not in outside and i.extent != 1]
    repeats = math.prod(
        b.times // (b.parent.times if b.parent else 1)
        for b in around
        if not b.base and not any(i in node.free for i in b.bound)
    )
    if found is None and repeats <= 1:
        return None
    if found is not None and any(out in outside for out, _ in found[0]):
        return None
    key = (id(node), w.precision.name if w.bounds else "", "staged")
    at = tuple(free)
    if key not in base.known:
        here = w.block
        name = w.scratch(math.prod(i.extent for i in at), node.kind)
        if found is not None:
            scattered(w, node, found, name, at, base)
        else:
            w.nest(at, base)
            w._store(name, w._flat_place(at), reduced(w, node))
            w.close(base)
        w.block = here
        base.known[key] = Operand(name, None, kind_of(w, node))
    held = base.known[key]
    shape = tuple(i.extent for i in at)
    place = w._place(Ref(Tensor("", shape, "float", ("", None)), at), [])
    here, w.block = w.block, home
    value = w.let(f"{held.value}[{place}]", f"{node.kind}_at") if w.bounds else f"{held.value}[{place}]"
    error = w.let(f"{held.value}E[{place}]", "e_t") if w.bounds else None
    w.block = here
    return Operand(value, error, held.kind)


def kind_of(w: Writer, node: Expr) -> str:
    """The kind of number of a node, by its form."""
    if isinstance(node, Reduce):
        if node.kind in ("any", "all"):
            return "b"
        if node.kind in ("rank", "argmax", "argmin"):
            return "i"
        body = kind_of(w, node.body)
        return "f" if body == "f" or node.kind == "mean" else "i"
    if isinstance(node, Named):
        return kind_of(w, node.body)
    if isinstance(node, Number):
        return {bool: "b", int: "i"}.get(type(node.value), "f")
    if isinstance(node, Index):
        return "i"
    if isinstance(node, Ref):
        return {"float": "f", "int": "i", "bool": "b"}.get(node.tensor.kind, "f")
    if isinstance(node, Apply):
        if node.function in COMPUTED_IN or node.function in ASIDE:
            return kind_of(w, node.args[0])
        return write(node.function, [Operand("x", None, kind_of(w, a)) for a in node.args]).kind
    return "f"


def guarded(w: Writer, over: Sequence[Index], where: Expr | None) -> Guard:
    """Opens loops over these indices; each condition is asked as far out as can be."""
    waiting, guard = conjuncts(where), Guard()
    left = [i for i in over if i.extent != 1]
    for i in [*left, None]:
        if i is not None:
            w.open(i)
            left = left[1:]
        for part in [part for part in waiting if part.free.isdisjoint(left)]:
            waiting.remove(part)
            asked_of(w, part, guard)
    return guard


def asked_of(w: Writer, part: Expr, guard: Guard) -> None:
    """Steps into a condition; where it is in doubt, the term is looked at all the same."""
    made = w.of(part)
    holds = truth(made, COMPARE)
    if made.error:
        guard.holds.append(w.let(holds, "holds"))
        guard.doubts.append(f"{made.error} > 0")
        holds = f"{guard.holds[-1]} || {made.error} > 0"
    w.block = Block(f"if ({made.value if not made.error else holds})", w.block, times=w.block.times)


def reduced(w: Writer, node: Reduce) -> Operand:
    """A reduction as loops where the writer stands; its result is known after them."""
    hull, count = w.block, math.prod(k.extent for k in node.over)
    if node.kind in ("sum", "mean", "product", "rank"):
        made = folded(w, node, count)
    elif node.kind in ("any", "all"):
        made = quantified(w, node)
    elif node.kind in ("max", "min"):
        made = extreme(w, node)
    else:
        made = place_of_extreme(w, node)
    assert w.block is hull
    return made


def folded(w: Writer, node: Reduce, count: int) -> Operand:
    """A sum, a mean, a product or a count."""
    kind = kind_of(w, node)
    product = node.kind == "product"
    sum_ = w._variable({"rank": "count", "mean": "sum"}.get(node.kind, node.kind), "1" if product else "0")
    carried = w.bounds and (kind == "f" or node.kind == "rank")
    size = w._variable("size", "1" if product else "0") if carried and kind == "f" else ""
    spread = w._variable("spread", "0") if carried else ""
    terms = w._variable("terms", "0") if carried and node.where is not None else str(count)
    hull = w.block
    guard = guarded(w, node.over, node.where)
    w.terms += w.block.times
    if node.kind == "rank":
        x, e = "1", None
    else:
        body = w.operand(node.body)
        x, e = within(body, SUM + (not product)), body.error
        if w.bounds and not re.fullmatch(r"[\w.]+", x):
            x = w.let(x, "x")
        elif body.kind == "b":
            x = f"+({body.value})"
    if w.bounds and e is None and node.kind != "rank" and kind != "f":
        e = None
    if guard.doubts:
        here = " && ".join(guard.holds)
        neutral = "1" if product else "0"
        w._add(f"{sum_} {'*' if product else '+'}= {here} ? {x} : {neutral};")
        if carried and size:
            w._add(
                f"{size} += {here} ? Math.abs({x}) : 0;",
                f"{spread} += {here} ? {e or 0} : Math.abs({x}) + {e or 0};",
            )
            w._add(f"if (!({here}) || {' || '.join(guard.doubts)}) {spread} += Math.abs({x});", f"{terms}++;")
        elif carried:
            w._add(f"{spread} += {' || '.join(guard.doubts)} ? 1 : 0;")
    elif product:
        w._add(f"{sum_} *= {x};")
        if size:
            w._add(f"{size} *= Math.abs({x}) + {e or 0};")
            if node.where is not None:
                w._add(f"{terms}++;")
    else:
        w._add(f"{sum_} += {x};")
        if carried:
            if size:
                w._add(f"{size} += Math.abs({x});")
            if e:
                w._add(f"{spread} += {e};")
            if node.where is not None:
                w._add(f"{terms}++;")
    w.close(hull)
    value = f"{sum_} / {count}" if node.kind == "mean" else sum_
    if node.kind == "mean":
        value = w.let(value, "mean")
    if not carried:
        return Operand(value, None, kind)
    if node.kind == "rank" or not size:
        return Operand(value, spread, kind)
    unit, tiny = UNITS[w.precision.name]
    if product:
        lost = f"({size} < {tiny} ? {terms} * {tiny} : 0)"
        error = f"{size} * (1 + gamma({terms}, {unit})) - Math.abs({value}) + {lost}"
        if guard.doubts:
            error = f"{spread} > 0 ? Infinity : {error}"
    elif node.kind == "mean":
        error = f"(gamma({count - 1}, {unit}) + 2 * {unit}) * ({size} / {count}) + {spread} / {count}"
    else:
        error = f"gamma({terms} - 1, {unit}) * {size} + {spread}"
    return Operand(value, w.let(f"settle({value}, {error})", "e_" + node.kind), kind)


def quantified(w: Writer, node: Reduce) -> Operand:
    """Whether something holds anywhere, or everywhere."""
    found = w._variable(node.kind, "false" if node.kind == "any" else "true")
    doubt = w._variable("doubt", "0") if w.bounds else None
    hull = w.block
    guard = guarded(w, node.over, node.where)
    w.terms += w.block.times
    body = w.of(node.body)
    sign = "||" if node.kind == "any" else "&&"
    if guard.holds:
        w._add(f"if ({' && '.join(guard.holds)}) {found} = {found} {sign} {truth(body, 6)};")
    else:
        w._add(f"{found} = {found} {sign} {truth(body, 6)};")
    if body.error:
        w._add(f"if ({body.error} > 0) {doubt} = 1;")
    if guard.doubts:
        w._add(f"{doubt} = 1;")
    w.close(hull)
    return Operand(found, doubt, "b")


def extreme(w: Writer, node: Reduce) -> Operand:
    """The largest or the smallest."""
    sign, worst = (">", "-Infinity") if node.kind == "max" else ("<", "Infinity")
    best = w._variable(node.kind, worst)
    spread = w._variable("spread", "0") if w.bounds else None
    hull = w.block
    guard = guarded(w, node.over, node.where)
    w.terms += w.block.times
    body = w.operand(node.body)
    x = body.value if re.fullmatch(r"\w+", body.value) else w.let(body.value, "x")
    if body.error:
        w._add(f"{spread} = Math.max({spread}, {body.error});")
    if guard.doubts:
        w._add(f"if ({' || '.join(guard.doubts)}) {spread} = Infinity;")
    w._add(f"if ({guard.asked(f'{x} {sign} {best} || {x} !== {x}')}) {best} = {x};")
    w.close(hull)
    return Operand(best, spread, body.kind)


def place_of_extreme(w: Writer, node: Reduce) -> Operand:
    """The row-major place of the first extreme; in doubt where another comes as near as the errors."""
    sign, worst = (">", "-Infinity") if node.kind == "argmax" else ("<", "Infinity")
    place, best = w._variable("place", "0"), w._variable("best", worst)
    hull = w.block
    more = (
        [w._variable(wish, start) for wish, start in (("near", "0"), ("spread", "0"), ("next", worst))]
        if w.bounds
        else []
    )
    guard = guarded(w, node.over, node.where)
    w.terms += w.block.times
    body = w.operand(node.body)
    x = body.value if re.fullmatch(r"\w+", body.value) else w.let(body.value, "x")
    at = w._flat_place(node.over)
    better = guard.asked(f"{x} {sign} {best} || ({x} !== {x} && {best} === {best})")
    if not more:
        w._add(f"if ({better}) {{ {best} = {x}; {place} = {at}; }}")
        w.close(hull)
        return Operand(place, None, "i")
    near, spread, following = more
    e, plus, pick = body.error or "0", "+" if sign == ">" else "-", "max" if sign == ">" else "min"
    w._add(f"{spread} = Math.max({spread}, {e});")
    if guard.doubts:
        w._add(f"if ({' || '.join(guard.doubts)}) {spread} = Infinity;")
    w._add(
        f"if ({better}) {{",
        f"  {following} = Math.{pick}({following}, {best} {plus} {near});",
        f"  {best} = {x}; {place} = {at}; {near} = {e};",
        f"}} else {following} = Math.{pick}({following}, {x} {plus} {e});",
    )
    w.close(hull)
    minus = "-" if plus == "+" else "+"
    doubtful = f"{spread} > 0 && {following} {sign}= {best} {minus} {near}"
    return Operand(place, w.let(f"{doubtful} ? Infinity : 0", "e_place"), "i")


def scattered(
    w: Writer,
    node: Reduce,
    found: tuple[list[tuple[Index, Expr]], Expr | None],
    name: str,
    at: tuple[Index, ...],
    base: Block,
) -> None:
    """Σ over matches in one pass: each term is added where its place says."""
    pairs, rest = found
    taken = {out for out, _ in pairs}
    size = math.prod(i.extent for i in at)
    first = {"product": "1", "all": "1", "max": "-Infinity", "min": "Infinity"}.get(node.kind, "0")
    base.lines.append(f"{name}.fill({first}, 0, {size});")
    sizes = w.scratch(size, "sizes") if w.bounds else ""
    if w.bounds:
        base.lines += [
            f"{name}E.fill(0, 0, {size});",
            f"{sizes}.fill({1 if node.kind == 'product' else 0}, 0, {size});",
            f"{sizes}E.fill(0, 0, {size});",
        ]
    w.nest([i for i in at if i not in taken], base)
    guard = guarded(w, node.over, rest)
    w.terms += w.block.times
    body = w.operand(node.body)
    marks: list[str] = list(guard.doubts)
    spots = dict[Index, str]()
    found_places = [(out, w.of(place)) for out, place in pairs]
    marks += [f"{made.error} > 0" for _, made in found_places if made.error]
    astray = ""
    if marks:  # a term whose place is in doubt may belong anywhere
        astray = w.fresh("astray")
        base.lines.append(f"let {astray} = 0;")
        w._add(f"if ({' || '.join(marks)}) {astray} += Math.abs({body.value}) + {body.error or 0};")
    if guard.holds:
        w.block = Block(f"if ({' && '.join(guard.holds)})", w.block, times=w.block.times)
    for out, made in found_places:
        spot = w.let(made.value, "at")
        spots[out] = spot
        w.block = Block(f"if ({spot} >= 0 && {spot} < {out.extent})", w.block, times=w.block.times)
    stride, parts = 1, []
    for i in reversed(at):
        part = spots[i] if i in taken else w.variable(i)
        parts.append(part if stride == 1 else f"{part} * {stride}")
        stride *= i.extent
    to = " + ".join(reversed(parts)) or "0"
    to = to if re.fullmatch(r"\w+", to) else w.let(to, "to")
    x, e = within(body, SUM), body.error or "0"
    spot = f"{name}[{to}]"
    line = {
        "sum": f"{spot} += {x};",
        "rank": f"{spot} += 1;",
        "product": f"{spot} *= {x};",
        "max": f"{spot} = larger({spot}, {x});",
        "min": f"{spot} = smaller({spot}, {x});",
        "any": f"if ({x}) {spot} = 1;",
        "all": f"if (!({x})) {spot} = 0;",
    }[node.kind]
    w._add(line)
    if w.bounds:
        if node.kind in ("max", "min"):
            w._add(f"{name}E[{to}] = Math.max({name}E[{to}], {e});")
        elif node.kind == "product":
            w._add(f"{sizes}[{to}] *= Math.abs({x}) + {e};", f"{sizes}E[{to}]++;")
        else:
            w._add(f"{name}E[{to}] += {e};", f"{sizes}[{to}] += Math.abs({x});", f"{sizes}E[{to}]++;")
    w.close(base)
    if w.bounds:
        unit = UNITS[w.precision.name][0]
        error = f"{name}E[at]"
        if node.kind == "sum" and kind_of(w, node.body) == "f":
            error += f" + gamma({sizes}E[at] - 1, {unit}) * {sizes}[at]"
        if node.kind == "product" and kind_of(w, node.body) == "f":
            error = f"{sizes}[at] * (1 + gamma({sizes}E[at], {unit})) - Math.abs({name}[at])"
        if astray:
            error += f" + {astray}" if node.kind in ("sum", "rank") else f" + ({astray} > 0 ? Infinity : 0)"
        if error != f"{name}E[at]":
            base.lines.append(f"for (let at = 0; at < {size}; at++) {name}E[at] = {error};")
