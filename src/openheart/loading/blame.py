"""When a network raises: in which module, with which shapes, and what it would have taken."""

from __future__ import annotations

from typing import Any

import torch

from openheart.errors import InputError, OpenheartError
from openheart.i18n import message
from openheart.loading.inputs import Inputs
from openheart.loading.trouble import reason, shape_of, where_raised

__all__ = ["run_error", "wanted_input"]


def run_error(
    error: BaseException, model: torch.nn.Module, inputs: Inputs, target: torch.Tensor | None
) -> InputError:
    """The error to show for one that came up while a network ran."""
    if isinstance(error, OpenheartError) and isinstance(error, InputError):
        return error
    given = ", ".join(f"{name} {shape_of(tensor)}" for name, tensor in inputs.items())
    if target is not None:
        given += f", target {shape_of(target)}"
    path, module = _innermost(error, model)
    where = where_raised(error)
    told = message("cli.error.run", reason=reason(error), given=given)
    if module is not None and (path or module is not model):
        told += " " + message("cli.error.run.module", path=path, module=type(module).__name__)
    if where:
        told += " " + message("cli.error.run.line", where=where)
    wants = wanted_by(module) if module is not None else ""
    if not wants and (module is None or module is model):
        wants = wanted_input(model)
    return InputError(told + (f" {wants}" if wants else ""))


def _innermost(error: BaseException, model: torch.nn.Module) -> tuple[str, torch.nn.Module | None]:
    """The innermost module of the network whose code was running."""
    paths = {id(module): path for path, module in model.named_modules()}
    found: tuple[str, torch.nn.Module | None] = ("", None)
    trace = error.__traceback__
    while trace is not None:
        this = trace.tb_frame.f_locals.get("self")
        if isinstance(this, torch.nn.Module) and id(this) in paths:
            found = paths[id(this)], this
        trace = trace.tb_next
    return found


def wanted_by(module: torch.nn.Module) -> str:
    """What a layer takes, as a sentence; empty where its kind does not say."""
    shape: str | None = None
    if isinstance(module, torch.nn.Linear):
        shape = f"(…, {module.in_features})"
    elif isinstance(module, torch.nn.Conv1d):
        shape = f"(N, {module.in_channels}, L)"
    elif isinstance(module, torch.nn.Conv2d):
        shape = f"(N, {module.in_channels}, H, W)"
    elif isinstance(module, torch.nn.Conv3d):
        shape = f"(N, {module.in_channels}, D, H, W)"
    elif isinstance(module, torch.nn.Embedding):
        return message("cli.wanted.ids", module=str(module), most=module.num_embeddings - 1)
    elif isinstance(module, torch.nn.RNNBase):
        shape = f"(N, L, {module.input_size})" if module.batch_first else f"(L, N, {module.input_size})"
    return "" if shape is None else message("cli.wanted.shape", module=_short(module), shape=shape)


def wanted_input(model: torch.nn.Module) -> str:
    """What a network seems to take, by its first layer that says so."""
    for module in model.modules():
        told = wanted_by(module)
        if told:
            return told
    return ""


def _short(module: Any) -> str:
    said = str(module).splitlines()[0]
    return said if len(said) <= 80 else type(module).__name__
