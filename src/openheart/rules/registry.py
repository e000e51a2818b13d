"""The rulebook's register: which law an operator's output obeys.

A law is written once, as a function of symbolic arguments, named as in the operator's schema:

    @rule("aten.addmm.default")
    def addmm(self, mat1, mat2, beta, alpha, *, at):
        i, j = at
        k = index("k", mat1.shape[1])
        return beta * self.broadcast(at) + alpha * total(k, mat1[i, k] * mat2[k, j])

A rule names only the schema arguments that it needs. Tensors arrive as `Tensor` symbols (lists as lists
of them, absent ones as None), floating-point scalars as named `Number`s, everything else as it is.
After the `*`: `at`, the output's index variables; `out`, the tuple of the call's own recorded outputs;
`position`, the place in a list output; `result`, the symbol of the output whose law this is; `stored`, the
floating-point format it is stored in (None for integers and bools); `geometry`,
where each tensor argument lies in its memory (by argument name; for laws that go through the memory).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from openheart.errors import RuleError
from openheart.formula.expr import Expr, Index, Kind, Number, Operand, Tensor, apply, expr, index
from openheart.formula.precision import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, QUARTERS, Precision

if TYPE_CHECKING:
    from openheart.recording import Call, Value

Slot = int | str
"""Which output a rule is for: a return's number, or the name of an argument that the call writes."""
RuleFunction = Callable[..., "Operand | None"]
"""A law; None for a form of the operator that it does not cover, which is opaque then."""
Written = TypeVar("Written", bound=RuleFunction)


@dataclass(frozen=True, slots=True)
class Rule:
    """One registered law, with the schema arguments it asks for and where it is written."""

    function: RuleFunction
    asks: frozenset[str]
    source: str


@dataclass(frozen=True, slots=True)
class Law:
    """The law of one output of one call: an expression over the output's index variables."""

    expr: Expr
    indices: tuple[Index, ...]
    output: Tensor
    precision: Precision
    """In which the kernel computes: float32 for half-precision tensors (PyTorch's opmath type)."""
    rule: Rule


_RULES: dict[tuple[str, Slot], Rule] = {}

INDEX_NAMES = "ijlmpqrstuvw"


def key_of(overload: Any) -> str:
    """`aten.addmm.default` for an OpOverload, or for a name that leaves out `aten.` or `.default`."""
    name = str(overload)
    if not isinstance(overload, str):
        return name
    if name.count(".") == 0:
        name += ".default"
    return name if name.count(".") == 2 else f"aten.{name}"


def rule(*overloads: Any, output: Slot = 0) -> Callable[[Written], Written]:
    """Register a law for one output of each of the overloads.

    **Raises** `RuleError` when one of them has a law already.
    """

    def register(function: Written) -> Written:
        asks = frozenset(inspect.signature(function).parameters)
        code = function.__code__
        made = Rule(function, asks, f"{code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno}")
        for overload in overloads:
            add_rule(key_of(overload), output, made)
        return function

    return register


def add_rule(key: str, output: Slot, made: Rule) -> None:
    if (key, output) in _RULES:
        raise RuleError(
            "error.rule.second", law=key, output=output, second=made.source, first=_RULES[key, output].source
        )
    _RULES[key, output] = made


def pointwise(
    *overloads: Any, output: Slot = 0
) -> Callable[[Callable[..., Operand]], Callable[..., Operand]]:
    """Register a law that acts element by element: the function receives broadcast elements.

    For operators on lists of tensors (`_foreach_*`) each list argument gives its element at the output's
    position. Written as a row: `pointwise("add.Tensor")(lambda self, other, alpha: self + alpha * other)`.
    """

    def register(function: Callable[..., Operand]) -> Callable[..., Operand]:
        names = tuple(inspect.signature(function).parameters)

        def law(*, at: Sequence[Index], position: int | None, **arguments: Any) -> Operand:
            return function(**{n: _element(arguments[n], at, position) for n in names})

        code = function.__code__
        source = f"{code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno}"
        made = Rule(law, frozenset((*names, "at", "position")), source)
        for overload in overloads:
            add_rule(key_of(overload), output, made)
        return function

    return register


def _element(argument: Any, at: Sequence[Index], position: int | None) -> Any:
    if isinstance(argument, list):
        argument = argument[position or 0] if argument else None
    if isinstance(argument, Tensor):
        return argument.broadcast(at)
    return argument


def value_of(scalar: Any) -> Any:
    """The plain number of a scalar argument, for decisions while a law is written."""
    return scalar.value if isinstance(scalar, Number) else scalar


def law_of(call: Call, output: int = 0) -> Law | None:
    """The law of one output of a recorded call; None where the rulebook has none (the call is opaque)."""
    _load()
    slot, position = call.slots[output]
    found = _RULES.get((str(call.op), slot))
    if found is None:
        return None
    value = call.outputs[output]
    out = tuple(_symbol(v, f"out{n}" if n else "out", ("output", n)) for n, v in enumerate(call.outputs))
    at = tuple(
        index(INDEX_NAMES[a] if a < len(INDEX_NAMES) else f"i{a}", n) for a, n in enumerate(value.shape)
    )
    given: dict[str, Any] = {"at": at, "position": position, "out": out, "result": out[output]}
    given["stored"] = format_of(value.dtype)
    if "geometry" in found.asks:
        given["geometry"] = {n: a.geometry for n, a in call.arguments.items() if hasattr(a, "geometry")}
    types = {a.name: str(a.type) for a in call.op._schema.arguments} if hasattr(call.op, "_schema") else {}
    given.update(
        (name, symbolic(name, given_, types.get(name, ""), together=position is None))
        for name, given_ in call.arguments.items()
    )
    missing = found.asks - given.keys()
    if missing:
        raise RuleError(
            "error.rule.arguments",
            source=found.source,
            missing=", ".join(sorted(missing)),
            op=call.op,
            known=", ".join(call.arguments),
        )
    made = found.function(**{name: given[name] for name in found.asks})
    if made is None:
        return None
    body = expr(made)
    return Law(body, at, out[output], precision_of(call, value), found)


def symbolic(name: str, argument: Any, schema_type: str = "", *, together: bool = False) -> Any:
    """An argument as a rule sees it: tensors as symbols, floating-point scalars as named numbers.

    The tensors of a list that one law reads `together` are told apart by their numbers, as in `tensors0`.
    """
    from openheart.recording import Value

    if isinstance(argument, Value):
        return _symbol(argument, name, (name, None))
    if isinstance(argument, (list, tuple)) and any(isinstance(v, Value) for v in argument):
        several = together and sum(isinstance(v, Value) for v in argument) > 1
        return [
            None if v is None else _symbol(v, f"{name}{n}" if several else name, (name, n))
            for n, v in enumerate(argument)
        ]
    if "float" in schema_type or "number" in schema_type:
        if isinstance(argument, (list, tuple)):
            return [Number(v, name) for v in argument]
        if isinstance(argument, (int, float, complex)) and not isinstance(argument, bool):
            return Number(argument, name)
    return argument


def _symbol(value: Value, name: str, key: tuple[str, int | None]) -> Tensor:
    return Tensor(name, tuple(value.shape), kind_of(value.dtype), key, str(value.dtype)[6:])


def kind_of(dtype: torch.dtype) -> Kind:
    if dtype == torch.bool:
        return "bool"
    if dtype.is_complex:
        return "complex"
    return "float" if dtype.is_floating_point else "int"


_FORMATS = {
    torch.float64: FLOAT64,
    torch.float32: FLOAT32,
    torch.bfloat16: BFLOAT16,
    torch.float16: FLOAT16,
    torch.complex128: FLOAT64,
    torch.complex64: FLOAT32,
    **{getattr(torch, name): held for name, held in QUARTERS.items() if hasattr(torch, name)},
}


def format_of(dtype: torch.dtype) -> Precision | None:
    """The floating-point format of a dtype; None for integers and bools."""
    return _FORMATS.get(dtype)


def precision_of(call: Call, value: Value) -> Precision:
    """In which precision the kernel computed: half-precision tensors are computed in float32."""
    from openheart.recording import Value

    dtypes = [value.dtype]
    if value.dtype not in _FORMATS:
        dtypes = [a.dtype for a in call.arguments.values() if isinstance(a, Value) and a.dtype in _FORMATS]
    if not dtypes:
        return FLOAT64
    widest = min((_FORMATS[d].unit for d in dtypes), default=FLOAT64.unit)
    return FLOAT64 if widest == FLOAT64.unit else FLOAT32


def all_rules() -> dict[tuple[str, Slot], Rule]:
    """Every registered law, by overload and output."""
    _load()
    return dict(_RULES)


def cast(x: Operand, kind: Kind, source: Kind) -> Expr:
    """X as another kind of number; rounding to a narrower float is the output's own rounding."""
    if kind == source or (kind in ("float", "complex") and source != "complex"):
        return expr(x)
    if kind == "int" and source == "complex":
        return apply("int", apply("real", x))
    return apply({"int": "int", "bool": "bool", "float": "real"}.get(kind, "float"), x)


_loaded = False


def _load() -> None:
    """Import the families of laws, once, at the first look-up."""
    global _loaded
    if _loaded:
        return
    from importlib import import_module

    for family in FAMILIES:
        import_module(f"openheart.rules.{family}")
    _loaded = True


FAMILIES: Iterable[str] = (
    "linear",
    "convolution",
    "pointwise",
    "special",
    "logic",
    "activation",
    "activation_backward",
    "creation",
    "reduction",
    "moments",
    "scan",
    "selection",
    "softmax",
    "normalization",
    "normalization_backward",
    "weight_norm",
    "attention",
    "attention_backward",
    "pooling",
    "sliding",
    "upsample",
    "indexing",
    "counting",
    "scatter",
    "masks",
    "embedding",
    "views",
    "reinterpret",
    "rearrange",
    "rearrange_backward",
    "loss",
    "loss_backward",
    "random",
    "recurrent",
    "recurrent_backward",
    "fourier",
    "optimizer",
    "lists",
)
