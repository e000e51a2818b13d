"""JavaScript written from formulas: each function against Python's, and formulas against their evaluation."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openheart.formula.evaluate import evaluate
from openheart.formula.expr import (
    Definition,
    Expr,
    Index,
    Leaf,
    Number,
    Tensor,
    apply,
    argmax,
    count,
    define,
    everywhere,
    exists,
    expr,
    index,
    largest,
    mean,
    named,
    product,
    recurrence,
    smallest,
    total,
    where,
)
from openheart.formula.functions import ASIDE, COMPUTED_IN, FUNCTIONS, exp, sqrt, tanh
from openheart.formula.javascript import NoJavaScript, function_of
from openheart.formula.javascript_rows import Operand, write
from openheart.formula.precision import FLOAT32
from openheart.live.export import _used_functions

NO_NODE = "no Node on this machine: the JavaScript was not run (`apt-get install nodejs`)"
node = shutil.which("node")
pytestmark = pytest.mark.skipif(node is None, reason=NO_NODE)


def said(folder: Path, script: str) -> Any:
    """What a script prints as JSON; NaN and infinities as words."""
    (folder / "script.mjs").write_text(_used_functions(script) + script, encoding="utf-8")
    done = subprocess.run([str(node), "script.mjs"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:] + script
    return json.loads(done.stdout)


def numbers(words: Any) -> Any:
    return np.array(
        [float(w.replace("Infinity", "inf").replace("true", "1").replace("false", "0")) for w in words]
    )


REAL = [-30.0, -7.3, -2.5, -1.5, -1.0, -0.7, -1e-3, 0.0, 1e-9, 0.2, 0.5, 0.99,
        1.0, 1.3, 2.0, 2.5, 4.0, 9.5, 31.0, 300.0]  # fmt: skip
WHOLE = [-9.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 12.0]
# How many units in the last place the two may be apart, where it is not 4. Near their zeros these are held
# to a few units of 1.
ULPS = dict.fromkeys(("lgamma", "digamma", "polygamma", "erfcx", "erfc", "ndtri", "erfinv"), 60)
ULPS |= dict.fromkeys(("i0", "i1", "i0e", "i1e"), 200) | {"zeta": 40, "pow": 8, "exp2": 8, "erf": 8}
_TWO = "atan2 hypot copysign fmod mod floordiv pow max min add sub mul div lt le gt ge eq ne zeta"
BINARY = set(_TWO.split())
BITS = {"bitand", "bitor", "bitxor", "shiftleft", "shiftright", "gcd"}
OTHER = {
    "real",
    "imag",
    "conj",
    "complex",
    "where",
    "and",
    "or",
    "xor",
    "not",
    "bitnot",
    "bool",
    "float",
    "polygamma",
}


OF_THE_FORMAT = {name for name in FUNCTIONS if name.startswith("bits_") or name.endswith("_of_bits")}


@pytest.mark.parametrize("name", sorted(OF_THE_FORMAT))
def test_the_bits_of_a_number_have_no_javascript(name: str) -> None:
    with pytest.raises(NoJavaScript, match="bits"):
        write(name, [Operand("a", None, "f")])


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - OTHER - OF_THE_FORMAT - set(COMPUTED_IN) - ASIDE))
def test_functions_are_pythons_to_a_few_units(name: str, tmp_path: Path) -> None:
    arity = 2 if name in BINARY | BITS else 1
    values = WHOLE if name in BITS else REAL
    first = [max(a, 1.5) for a in values] if name == "zeta" else values
    if name.startswith("shift"):
        pairs = [(a, b) for a in first for b in (0.0, 1.0, 5.0)]
    else:
        pairs = [(a, b) for a in first for b in values] if arity == 2 else [(a, 0.0) for a in values]
    kind = "i" if name in BITS else "f"
    made = write(name, [Operand("a", None, kind), Operand("b", None, kind)][:arity])
    shown = json.dumps([list(pair) for pair in pairs])
    found = numbers(
        said(tmp_path, f"console.log(JSON.stringify({shown}.map(([a, b]) => String({made.value}))));")
    )
    columns = [np.array(column) for column in zip(*pairs, strict=True)][:arity]
    if name in BITS:
        columns = [column.astype(np.int64) for column in columns]
    with np.errstate(all="ignore"):
        wanted = np.asarray(FUNCTIONS[name].compute(*columns)).astype(np.float64)
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    size = np.abs(wanted)
    if name in ("lgamma", "digamma", "polygamma", "ndtri", "erfinv"):
        size = np.maximum(size, 1.0)
    with np.errstate(invalid="ignore"):
        near = np.abs(found - wanted) <= ULPS.get(name, 4) * 2.0**-53 * size + 1e-300
    exact = FUNCTIONS[name].exact
    good = same if exact else same | near
    assert good.all(), [(pairs[k], found[k], wanted[k]) for k in np.flatnonzero(~good)[:5]]


def test_polygamma(tmp_path: Path) -> None:
    found = said(tmp_path, "console.log(JSON.stringify([0, 1, 2, 3].map((n) => polygamma(n, 2.5))));")
    wanted = [float(FUNCTIONS["polygamma"].compute(n, np.array(2.5))) for n in range(4)]
    assert found == pytest.approx(wanted, rel=1e-14)


def test_the_power_of_a_whole_number_is_pythons(tmp_path: Path) -> None:
    """Adam's bias corrections, step after step."""
    for beta in (0.9, 0.95, 0.99, 0.999, 0.9999):
        found = said(tmp_path, f"const r = []; for (let t = 0; t < 2000; t++) r.push(wholePower({beta}, t));"
                               "console.log(JSON.stringify(r));")  # fmt: skip
        wanted = [beta**t for t in range(2000)]
        assert found == pytest.approx(wanted, rel=2.3e-16), "never more than a unit in the last place"
        assert sum(x != y for x, y in zip(found, wanted, strict=True)) < 20


def test_rounding_to_half_precision(tmp_path: Path) -> None:
    import torch

    draw = np.random.default_rng(0)
    x = np.concatenate(
        [draw.normal(size=500) * 10.0 ** draw.integers(-9, 6, 500), [65519.0, 65520.0, 1e-8, 0.0, -3e-8]]
    )
    x = x.astype(np.float32).astype(np.float64)
    script = f"const x = {json.dumps(x.tolist())};"
    script += "const halves = [toFloat16, toBfloat16].map((f) => x.map((n) => String(f(n))));"
    script += "console.log(JSON.stringify(halves));"
    found = said(tmp_path, script)
    for words, dtype in zip(found, (torch.float16, torch.bfloat16), strict=True):
        assert np.array_equal(numbers(words), torch.tensor(x).to(dtype).double().numpy())


# -- formulas ----------------------------------------------------------------------------------------

DRAW = np.random.default_rng(3)
X = Tensor("x", (4, 5), "float", ("x", None), "float32")
Y = Tensor("y", (5, 3), "float", ("y", None), "float32")
N = Tensor("n", (6,), "int", ("n", None), "int64")
V = Tensor("v", (6,), "float", ("v", None), "float32")
DATA = {
    "x": DRAW.normal(size=(4, 5)).astype(np.float32),
    "y": DRAW.normal(size=(5, 3)).astype(np.float32),
    "n": np.array([0, 3, 3, 1, 0, 3]),
    "v": DRAW.normal(size=6).astype(np.float32),
}
i, j, k, m = index("i", 4), index("j", 3), index("k", 5), index("m", 6)
a, b = index("a", 4), index("b", 5)


def scan() -> Definition:
    t, h = index("t", 4), index("h", 5)
    return recurrence("c", (t, h), lambda c: X[t, h] + where(t == 0, 0.0, 0.5 * tanh(c[t - 1, h])))


def softmax(axis: int) -> Expr:
    over = index("k", X.shape[axis])
    at = (over, b) if axis == 0 else (a, over)
    top = named("m", largest(over, X[at]))
    return exp(X[a, b] - top) / named("Z", total(over, exp(X[at] - top)))


FORMULAS: dict[str, tuple[Expr, tuple[Index, ...]]] = {
    "a product of matrices": (total(k, X[i, k] * Y[k, j]), (i, j)),
    "scaled": (0.3 * X[a, b] + Number(1.7, "alpha"), (a, b)),
    "softmax along rows": (softmax(1), (a, b)),
    "softmax along columns": (softmax(0), (a, b)),
    "a variance": (mean(k, (X[i, k] - named("mu", mean(k, X[i, k]))) ** 2), (i,)),
    "a scatter": (total(m, V[m], where=N[m] == i), (i,)),
    "counted matches": (count(m, where=N[m] == i), (i,)),
    "a product of matches": (product(m, V[m], where=N[m] == i), (i,)),
    "gathered rows": (X[N[m], b], (m, b)),
    "a window": (total(k, X[i, k], where=(k >= i) & (k < i + 2)), (i,)),
    "shifted, with padding": (where(b >= 1, X[a, b - 1], 0.0), (a, b)),
    "a reshape": (X[(5 * a + b) // 5, (5 * a + b) % 5] * 2.0, (a, b)),
    "the first largest": (argmax(k, X[i, k]), (i,)),
    "extremes": (largest(k, X[i, k]) - smallest(k, X[i, k], where=k > 0), (i,)),
    "truths": (exists(k, X[i, k] > 1.5) | everywhere(k, X[i, k] < 1.5), (i,)),
    "a recurrence": (scan()[a, b], (a, b)),
    "a definition": (define("d", (k,), total(i, X[i, k]))[b] * X[a, b], (a, b)),
    "a running sum": (total(k, X[i, k], where=k <= j), (i, j)),
    "a norm": (sqrt(total((i, k), X[i, k] * X[i, k])), ()),
    "the same index inside": (X[a, b] - total(b, X[a, b]) / 5, (a, b)),
    "a sum of sums": (total(k, X[i, k] * total(j, Y[k, j] * Y[k, j])), (i,)),
    "where of a sum": (where(X[i, 0] > 0, total(k, X[i, k]), product(k, X[i, k])), (i,)),
}


@pytest.mark.parametrize("bounds", [False, True], ids=["plain", "bounds"])
@pytest.mark.parametrize("which", FORMULAS)
def test_formulas_are_what_their_evaluation_gives(which: str, bounds: bool, tmp_path: Path) -> None:
    body, at = FORMULAS[which]
    wanted, limit = evaluate(body, at, lambda tensor: DATA[tensor.key[0]], FLOAT32)
    out = Tensor("out", tuple(n.extent for n in at), "float", ("output", 0), "float64")
    made = function_of(body, at, out, FLOAT32, bounds)
    size = int(np.prod(out.shape))
    given = [f"new Float64Array({size})"] * (2 if bounds else 1)
    for tensor in made.tensors:
        given.append(
            f"Float64Array.from({json.dumps(DATA[tensor.key[0]].reshape(-1).astype(float).tolist())})"
        )
        given += [f"new Float64Array({math.prod(tensor.shape)})"] if bounds else []
    given += [json.dumps(number.value) for number in made.scalars]
    script = f"function law{made.source}\nconst given = [{', '.join(given)}]; law(...given); law(...given);"
    script += f"const out = given.slice(0, {2 if bounds else 1});"
    script += "console.log(JSON.stringify(out.map((x) => Array.from(x, String))));"
    found = said(tmp_path, script)
    wide = np.asarray(wanted, dtype=np.float64).reshape(-1)
    assert numbers(found[0]) == pytest.approx(wide, rel=1e-14, abs=1e-15)
    if bounds:
        errors, allowed = numbers(found[1]), np.asarray(limit, dtype=np.float64).reshape(-1)
        assert (errors >= 0.2 * allowed).all(), "no smaller than what evaluation grants"
        assert (errors <= 5 * allowed + 4e-16 * (1 + np.abs(wide))).all(), "and no looser"


def test_what_does_not_depend_on_a_loop_is_not_in_it() -> None:
    """A softmax's denominator costs one sum a row, whichever way the rows lie."""
    for axis in (0, 1):
        out = Tensor("out", (4, 5), "float", ("output", 0), "float32")
        made = function_of(softmax(axis), (a, b), out, FLOAT32)
        assert made.terms <= 4 * 20, made.source


def test_a_scatter_takes_one_pass() -> None:
    body, at = FORMULAS["a scatter"]
    made = function_of(body, at, Tensor("out", (4,), "float", ("output", 0), "float32"), FLOAT32)
    assert made.terms == 6 + 4


def test_equal_laws_of_other_shapes_share_their_source() -> None:
    sources = set()
    for shape in ((3,), (4, 5), (2, 1, 6)):
        at = tuple(index("pqr"[n], size) for n, size in enumerate(shape))
        x = Tensor("x", shape, "float", ("x", None), "float32")
        out = Tensor("out", shape, "float", ("output", 0), "float32")
        sources.add(function_of(x.broadcast(at) * Number(0.9, "alpha"), at, out, FLOAT32).source)
    assert len(sources) == 1


@pytest.mark.parametrize(
    "body", [apply("complex", X[a, b], X[a, b]), expr(1j) * X[a, b], X[a, b] + Leaf("random")], ids=str
)
def test_what_has_no_javascript_says_so(body: Expr) -> None:
    with pytest.raises(NoJavaScript):
        function_of(body, (a, b), Tensor("out", (4, 5), "float", ("output", 0), "float32"), FLOAT32)
