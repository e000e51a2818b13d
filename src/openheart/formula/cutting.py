"""Where an evaluation is cut, so that no array of it grows too large."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from openheart.formula.contract import factors_of
from openheart.formula.expr import Binding, Expr, Index, Reduce, children
from openheart.formula.folds import FOLDS, matches

PEAK = 1 << 21
"""An evaluation is cut along one index when an array of it would hold more elements than this."""


def cut(
    node: Expr, indices: Sequence[Index], peak: int = PEAK, spans: Mapping[Index, range] | None = None
) -> list[dict[Index, Binding]]:
    """Bindings that split an evaluation along one index, so that no array holds more than `peak` elements.

    `spans` are the places to which index variables are kept already.
    """
    return _pieces(indices, _widest(node), peak, {} if spans is None else spans)


def _pieces(
    indices: Sequence[Index], widest: list[frozenset[Index]], peak: int, spans: Mapping[Index, range]
) -> list[dict[Index, Binding]]:
    def extent(i: Index) -> int:
        return len(spans[i]) if i in spans else i.extent

    def largest(cut: Index | None, pieces: int) -> float:
        return max(
            (
                math.prod(max(1, -(-extent(i) // pieces)) if i is cut else extent(i) for i in w)
                for w in widest
            ),
            default=1,
        )

    whole = largest(None, 1)
    candidates = [i for i in indices if extent(i) > 1]
    if whole <= peak or not candidates:
        return [dict(spans)]
    cut = min(candidates, key=lambda i: (largest(i, extent(i)), -extent(i)))
    places = spans.get(cut, range(cut.extent))
    pieces = min(len(places), math.ceil(whole / peak))
    step = -(-len(places) // pieces)
    return [{**spans, cut: places[a : a + step]} for a in range(0, len(places), step)]


def _widest(node: Expr) -> list[frozenset[Index]]:
    """The index sets over which arrays will be made, sums of products counted by their factors."""
    found: list[frozenset[Index]] = []
    seen: set[int] = set()
    stack = [node]
    while stack:
        here = stack.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        found.append(here.free)
        scattered = matches(here, {}) if isinstance(here, Reduce) and here.kind in FOLDS else None
        if isinstance(here, Reduce) and scattered is not None:
            # One pass over the sources: the places are never held against every output.
            pairs, rest = scattered
            parts = [here.body, *(place for _, place in pairs), *(() if rest is None else (rest,))]
            found.append(frozenset[Index]().union(*(part.free for part in parts)))
            stack.extend(parts)
        elif isinstance(here, Reduce) and here.kind == "sum":
            factors = factors_of(here.body)
            if len(factors) == 1:
                found.append(here.body.free)
            stack.extend(factors)
            if here.where is not None:
                stack.append(here.where)
        else:
            stack.extend(children(here))
    return found
