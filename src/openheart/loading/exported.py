"""Exported programs (`.pt2`), read without trusting their author where that is possible.

`torch.export.load` is no data reader: it unpickles what its records say is pickled (and falls back to a full
unpickling when a safe one fails), evaluates symbolic sizes with sympy, looks operators up by dotted name from
the `torch` module down, and compiles the guards as Python. So we look first. A program that is nothing but
ATen calls on plain tensors, as `torch.export.save` writes them, cannot run anything else and is loaded;
whatever goes beyond that needs `--trust`.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from openheart.loading.trouble import bad_model, reason

__all__ = ["load_exported", "what_needs_trust"]

_OPERATOR = re.compile(r"torch\.ops\.(aten|prims|higher_order)\.(\w+)(?:\.(\w+))?")
_ARITHMETIC = re.compile(r"(_operator\.(?!\w*(?:getter|caller))[a-z]\w*|math\.[a-z]\w*|torch\.sym_[a-z]\w*)")
_HIGHER = {"wrap_with_set_grad_enabled", "wrap_with_autocast", "cond", "while_loop", "scan", "map_impl"}
_NAME = re.compile(r"[\w.]*")
# The words that torch.export itself writes into a symbolic size or a guard.
_WORDS = re.compile(
    r"[suz]\d+|args|kwargs|L|size|stride|storage_offset|shape|ndim|dim|math|inf|oo|int_oo|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Max|Min|"
    r"FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|"
    r"FloatPow|FloatTrueDiv|IntTrueDiv|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt|"
    r"RoundDecimal|ToFloat|Identity|True|False|None|Symbol|Integer|Rational|Float|Add|Mul|Pow|Piecewise|Tuple"
)
_ALLOWED_SYNTAX = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Subscript, ast.Attribute,
    ast.Name, ast.Constant, ast.keyword, ast.Load, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
    ast.Slice, ast.Tuple,
)  # fmt: skip


def load_exported(path: Path, trust: bool = False) -> torch.nn.Module:
    """The module of an exported program, in the mode (training or inference) in which it was exported.

    **Raises** `PatientError` for a file that is not one and, unless `trust`, one that could run other code.
    """
    try:
        doubt = None if trust else what_needs_trust(path)
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        raise bad_model("exported.broken", file=path, reason=reason(error)) from error
    if doubt is not None:
        raise bad_model("exported.trust", file=path, doubt=doubt)
    try:
        return torch.export.load(path).module()
    except Exception as error:
        raise bad_model("exported.broken", file=path, reason=reason(error)) from error


def what_needs_trust(path: Path) -> str | None:
    """The first thing in an archive that is more than ATen calls on plain tensors; None if there is none."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if not any(name.endswith("/archive_format") for name in names):
            raise ValueError("it is a zip file, but no torch.export archive")
        for name in names:
            inner = name.partition("/")[2]
            if inner.endswith(".pt") and inner.startswith(("data/weights", "data/constants")):
                return name
            if inner.startswith("data/aotinductor"):
                return name
            if inner.startswith("data/sample_inputs") and archive.getinfo(name).file_size:
                try:
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                except Exception:  # noqa: BLE001  any failure makes torch.export.load fall back to a full unpickling
                    return name
            if inner.endswith("_config.json"):
                for key, payload in json.loads(archive.read(name)).get("config", {}).items():
                    if payload.get("use_pickle") or not str(payload.get("path_name")).startswith(
                        ("weight_", "tensor_")
                    ):
                        return f"{name}: {key}"
            if inner.startswith("models/"):
                doubt = next(_doubts(json.loads(archive.read(name))), None)
                if doubt is not None:
                    return f"{name}: {doubt}"
    return None


def _doubts(program: Any) -> Iterator[str]:
    """What in a program's JSON goes beyond what `torch.export.save` writes for plain networks."""
    graph = program["graph_module"]
    if graph.get("treespec_namedtuple_fields"):
        yield "treespec_namedtuple_fields"
    for guard in program.get("guards_code", []):
        if not _plain_expression(guard):
            yield f"guard {guard[:60]!r}"
    stack: list[tuple[str, Any]] = [("", program)]
    while stack:
        key, here = stack.pop()
        if key == "metadata":  # read as text: stack traces and module names
            continue
        if isinstance(here, dict):
            if key in (
                "tensor_values",
                "sym_int_values",
                "sym_bool_values",
                "sym_float_values",
                "custom_obj_values",
            ):
                yield from (f"name {name[:60]!r}" for name in here if not _NAME.fullmatch(name))
            if here.get("custom_obj_values"):
                yield "custom_obj_values"
            stack.extend(here.items())
        elif isinstance(here, list):
            stack.extend((key, item) for item in here)
        elif isinstance(here, str):
            if key == "target" and not _plain_operator(here):
                yield f"operator {here[:60]!r}"
            elif key == "expr_str" and not _plain_expression(here):
                yield f"size {here[:60]!r}"
            elif key in ("in_spec", "out_spec") and not _plain_structure(here):
                yield f"structure {here[:60]!r}"
            elif key in ("name", "fqn", "parameter_name", "buffer_name") and not _NAME.fullmatch(here):
                yield f"name {here[:60]!r}"


def _plain_operator(target: str) -> bool:
    found = _OPERATOR.fullmatch(target)
    if found is None:
        return _ARITHMETIC.fullmatch(target) is not None
    space, name, overload = found.groups()
    if space == "higher_order":
        return name in _HIGHER and overload is None
    packet = getattr(getattr(torch.ops, space), name, None)
    return isinstance(getattr(packet, overload or "default", None), torch._ops.OpOverload)


def _plain_expression(code: str) -> bool:
    """Whether a size or a guard is arithmetic over the names that torch.export gives."""
    try:
        tree = ast.parse(code.strip(), mode="eval")
    except SyntaxError:
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED_SYNTAX):
            return False
        if isinstance(node, ast.Name) and not _WORDS.fullmatch(node.id):
            return False
        if isinstance(node, ast.Attribute) and not (_WORDS.fullmatch(node.attr) or node.attr in _MATH):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not _NAME.fullmatch(node.value):
            return False
    return True


_MATH = ("floor", "ceil", "trunc", "sqrt", "pow", "log2", "exp", "isnan")


def _plain_structure(spec: str) -> bool:
    """Whether a structure of inputs or outputs is made of tuples, lists and dicts only."""
    if not spec:
        return True
    stack = [json.loads(spec)]
    while stack:
        here = stack.pop()
        if isinstance(here, list):
            stack.extend(here)
        elif isinstance(here, dict):
            if here.get("type") not in (None, "builtins.tuple", "builtins.list", "builtins.dict"):
                return False
            stack.extend(here.get("children_spec", []))
    return True
