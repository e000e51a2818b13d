"""Rows: one line of mathematics, and every form in which PyTorch calls it.

    row("add", lambda self, other, alpha=1: self + alpha * other)

covers `add.Tensor`, `add.Scalar`, `add.out`, the in-place `add_`, and `_foreach_add`, `_foreach_add_` in all
their overloads. The function names its parameters as the schema does; where forms of one operator spell an
argument differently (`other`, `scalar`, `scalars`), `ALIASES` says so, and an argument that a form does not
have takes the function's default. Each argument arrives as the element that meets the output's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch

from openheart.errors import RuleError
from openheart.formula.expr import Expr, Index, Number, Operand, Ref, Tensor
from openheart.formula.functions import computed_in, to_float
from openheart.formula.precision import PRECISIONS
from openheart.rules.registry import Rule, Slot, add_rule

ALIASES: dict[str, tuple[str, ...]] = {
    "other": ("scalar", "scalars"),
    "min": ("other", "scalar", "scalars"),
    "max": ("other", "scalar", "scalars"),
    "end": ("tensors1",),
    "weight": ("weights", "scalars"),
    "value": ("scalars",),
    "src": ("other",),
}
"""How else the schemas spell a parameter."""
HALVES = ("bfloat16", "float16")
WHOLE = frozenset({"value", "start", "end", "min_val", "max_val"})
"""Parameters of which a tensor of whole numbers takes the whole part."""
KEPT = frozenset({"condition", "mask"})
"""Parameters that choose: they are never converted to the result's kind of number."""


def row(
    *names: str, output: int = 0, scalars: Literal["stored", "float32", "either"] = "float32"
) -> Callable[[Callable[..., Operand]], Callable[..., Operand]]:
    """Register one law for every form of the operators `names`; of several returns, for number `output`.

    `scalars` says to what a kernel rounds its scalar arguments when the tensors are of half precision: to
    their own format ("stored"), or to the one it computes in. "either": its vector loop rounds them and the
    loop over what is left does not, so that both are allowed for.

    **Raises** `RuleError` when no form of an operator has the law's parameters.
    """

    def register(function: Callable[..., Operand]) -> Callable[..., Operand]:
        for name in names:
            found = 0
            for key, schema in forms(name):
                asked = spelled(function, [argument.name for argument in schema.arguments])
                if asked is not None:
                    found += 1
                    add_rule(key, slot(schema, output), _rule(function, asked, scalars, "_foreach" in key))
            if not found:
                raise RuleError("error.rule.row", name=name, line=_line(function))
        return function

    return register


def forms(name: str, anything: bool = False) -> Iterator[tuple[str, Any]]:
    """Every overload of an operator: functional, in place, with `out`, on lists of tensors.

    Those without a tensor only with `anything`: TorchScript's operators on numbers have the same names.
    """
    listed = f"_foreach_{name.lstrip('_')}"
    for spelling in (name, f"{name}_", listed, f"{listed}_"):
        packet = getattr(torch.ops.aten, spelling, None)
        for overload in [] if packet is None else packet.overloads():
            schema = getattr(packet, overload)._schema
            if anything or any("Tensor" in str(argument.type) for argument in schema.arguments):
                yield f"aten.{spelling}.{overload}", schema


def slot(schema: Any, output: int = 0) -> Slot:
    """Which output of a form is meant: a return's number, or what it writes when it returns nothing."""
    if schema.returns:
        return output
    written = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return str(written[output])


def spelled(function: Callable[..., Operand], arguments: Sequence[str]) -> dict[str, str] | None:
    """The schema's spelling of each of a law's parameters; None when one is missing that has no default."""
    found: dict[str, str] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        spelling = next((s for s in (name, *ALIASES.get(name, ())) if s in arguments), None)
        if spelling is not None:
            found[name] = spelling
        elif parameter.default is inspect.Parameter.empty and name != "result":
            return None
        elif name == "result":
            found[name] = name
    return found


def _rule(function: Callable[..., Operand], asked: dict[str, str], scalars: str, listed: bool) -> Rule:
    def law(*, at: Sequence[Index], position: int | None, result: Tensor, **given: Any) -> Operand:
        made: dict[str, Any] = {"result": result} if "result" in asked else {}
        for name, spelling in asked.items():
            if name == "result":
                continue
            part = element(given[spelling], spelling, at, position)
            if isinstance(part, Ref):
                made[name] = part if name in KEPT else promoted(part, result)
            else:
                made[name] = scalar_in(part, result, scalars, listed)
        return function(**made)

    file = function.__code__.co_filename.rsplit("/", 1)[-1]
    asks = frozenset((*asked.values(), "at", "position", "result"))
    return Rule(law, asks, f"{file}:{_line(function)}")


def _line(function: Callable[..., Operand]) -> int:
    return function.__code__.co_firstlineno


def element(argument: Any, spelling: str, at: Sequence[Index], position: int | None) -> Any:
    """The part of an argument that meets output element `at` (of the list's member `position`)."""
    if isinstance(argument, list):
        argument = argument[position or 0] if argument else None
    if isinstance(argument, Tensor):
        if spelling == "scalars":  # one number for each tensor of the list, held in a tensor
            return argument[position or 0]
        return argument.broadcast(at)
    return argument


def promoted(part: Ref, result: Tensor) -> Expr:
    """A whole number or a truth value as the kernel sees it when the result is a float: converted first."""
    if part.tensor.kind not in ("int", "bool") or result.kind != "float":
        return part
    given = PRECISIONS.get(result.dtype)
    return to_float(part) if given is None else computed_in(given, to_float(part))


def scalar_in(part: Any, result: Tensor, scalars: str = "stored", listed: bool = False) -> Any:
    """A scalar argument as the kernel holds it: rounded to the format that it computes in.

    On lists of half-precision tensors some forms round it to theirs and some do not: both are allowed for.
    """
    value = part.value if isinstance(part, Number) else part
    name = part.name if isinstance(part, Number) else None
    if type(value) not in (int, float):
        return part
    if result.kind == "float" and type(value) is float:
        if result.dtype in HALVES and (listed or scalars == "either"):
            return computed_in(PRECISIONS[result.dtype], Number(held(value, "float32"), name))
        if scalars == "either":
            return part
        wider = result.dtype in HALVES and scalars == "float32"
        return Number(held(value, "float32" if wider else result.dtype), name)
    if result.kind == "int" and (type(value) is int or name in WHOLE):
        return Number(held(value, result.dtype), name)
    return part


def kind_of(x: Operand) -> str:
    """The kind of number that an operand is: "float", "int", "bool" or "complex"."""
    if isinstance(x, Ref):
        return x.tensor.kind
    value = getattr(x, "value", x)
    if isinstance(value, Expr):
        return "float"
    return {bool: "bool", int: "int", complex: "complex"}.get(type(value), "float")


def stored(x: Expr, tensor: Tensor, formats: Sequence[str] = HALVES) -> Expr:
    """x, where a kernel rounds each step to the half-precision format that the tensor is stored in."""
    return computed_in(PRECISIONS[tensor.dtype], x) if tensor.dtype in formats else x


def held(value: Any, dtype: str) -> Any:
    """A plain number as a tensor of this dtype holds it: rounded, cut to a whole number, wrapped."""
    if isinstance(value, (Expr, complex)) or dtype.startswith("complex"):
        return value
    kind = torch.int64 if isinstance(value, int) else torch.float64
    return torch.tensor(value, dtype=kind).to(getattr(torch, dtype)).item()
