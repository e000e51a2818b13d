"""Networks from a name: your own file, an installed module, an exported program, an ONNX file."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import inspect
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from openheart.loading.exported import load_exported
from openheart.loading.onnx_file import load_onnx
from openheart.loading.pickles import holds_pickle
from openheart.loading.trouble import bad_model, did_you_mean, reason, where_raised

__all__ = ["find", "load_model", "load_weights"]


def load_model(spec: str, trust: bool = False) -> torch.nn.Module:
    """A fresh network from `file.py:factory`, `package.module:factory`, a `.pt2` or an `.onnx` file.

    A factory is a function or class that gives an `nn.Module` when called without arguments, or a module.
    `file.py` alone will do when only one thing in it can be the network.

    **Raises** `PatientError` that says what is missing, and for a pickle unless `trust`.
    """
    path = Path(spec).expanduser()
    suffix = path.suffix.lower()
    if suffix == ".py" or ".py:" in spec or (":" in spec and not path.exists()):
        return _from_factory(spec)
    if not path.exists():
        raise bad_model("missing_file", file=path, near=_near_file(path))
    if path.is_dir():
        raise bad_model("model_folder", file=path)
    if not path.is_file():  # a FIFO would be waited for, and a device never ends
        raise bad_model("not_a_file", file=path)
    if suffix == ".pt2":
        return load_exported(path, trust)
    if suffix == ".onnx":
        return load_onnx(path)
    if holds_pickle(path):
        return _pickled(path, trust)
    raise bad_model("unknown_model", model=spec, near="")


def _near_file(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    return did_you_mean(path.name, (p.name for p in folder.iterdir()))


def _pickled(path: Path, trust: bool) -> torch.nn.Module:
    if not trust:
        # The restricted unpickler makes tensors and nothing else, so it may look: is it just weights?
        try:
            inside = torch.load(path, weights_only=True, map_location="cpu")
        except Exception:  # noqa: BLE001  whatever it is, it is not plain weights
            raise bad_model("pickle.model", file=path) from None
        raise bad_model("pickle.weights" if isinstance(inside, dict) else "pickle.tensor", file=path)
    try:
        if _is_torchscript(path):
            return torch.jit.load(path, map_location="cpu")
        inside = torch.load(path, weights_only=False, map_location="cpu")
    except Exception as error:
        raise bad_model("model_unreadable", file=path, reason=reason(error)) from error
    if isinstance(inside, dict):
        raise bad_model("pickle.weights", file=path)
    if not isinstance(inside, torch.nn.Module):
        raise bad_model("not_a_module", model=path, found=type(inside).__name__)
    return inside


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[-1] == "constants.pkl" for name in archive.namelist())


# Factories -----------------------------------------------------------------------------------------


def _from_factory(spec: str) -> torch.nn.Module:
    thing = find(spec)
    if isinstance(thing, torch.nn.Module):
        try:
            return copy.deepcopy(thing)
        except Exception:  # noqa: BLE001  a module that cannot be copied is used as it is
            return thing
    if not callable(thing):
        raise bad_model("not_a_module", model=spec, found=type(thing).__name__)
    needed = _required(thing)
    if needed:
        raise bad_model("factory_arguments", factory=spec, names=", ".join(needed))
    with _aside():
        try:
            made = thing()
        except (Exception, SystemExit) as error:
            raise bad_model(
                "factory_raised", factory=spec, reason=reason(error), where=_where(error, spec)
            ) from error
    if not isinstance(made, torch.nn.Module):
        raise bad_model("not_a_module", model=spec, found=type(made).__name__)
    return made


def find(spec: str) -> Any:
    """The thing that `file.py:name` or `package.module:name` names; the file is run, nothing is called.

    **Raises** `PatientError` where nothing has that name.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or name.endswith(".py"):
        place, name = spec, ""
    module = _run_file(Path(place).expanduser()) if place.endswith(".py") else _import(place, spec)
    if not name:
        candidates = _candidates(module)
        if len(candidates) == 1:
            return candidates[0][1]
        choices = ", ".join(f"{place}:{each}" for each, _ in candidates)
        raise bad_model("which_factory" if choices else "no_factory", file=place, choices=choices)
    thing: Any = module
    for part in name.split("."):
        if not hasattr(thing, part):
            known = [each for each in vars(module) if not each.startswith("_")]
            fits = ", ".join(f"`{each}`" for each, _ in _candidates(module)) or "–"
            raise bad_model(
                "no_such_factory", name=name, place=place, near=did_you_mean(name, known), choices=fits
            )
        thing = getattr(thing, part)
    return thing


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise bad_model("missing_file", file=path, near=_near_file(path))
    path = path.resolve()
    name = f"openheart_user_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    with _aside(), _importing_from(path.parent):
        try:
            specification.loader.exec_module(module)
        except SyntaxError as error:
            where = f"{Path(error.filename or path).name}:{error.lineno}"
            raise bad_model("file_raised", file=path.name, reason=reason(error), where=where) from error
        except (Exception, SystemExit) as error:
            where = where_raised(error, str(path))
            raise bad_model("file_raised", file=path.name, reason=reason(error), where=where) from error
    return module


def _import(place: str, spec: str) -> ModuleType:
    with _aside(), _importing_from(Path.cwd()):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is not None and (place == error.name or place.startswith(error.name + ".")):
                raise bad_model("no_such_module", module=place, model=spec) from error
            raise bad_model(
                "file_raised", file=place, reason=reason(error), where=where_raised(error)
            ) from error
        except (ValueError, TypeError) as error:
            raise bad_model("unknown_model", model=spec, near="") from error
        except (Exception, SystemExit) as error:
            raise bad_model(
                "file_raised", file=place, reason=reason(error), where=where_raised(error)
            ) from error


def _where(error: BaseException, spec: str) -> str:
    place = spec.rpartition(":")[0] or spec
    file = str(Path(place).expanduser().resolve()) if place.endswith(".py") else None
    return where_raised(error, file) or where_raised(error)


def _candidates(module: ModuleType) -> list[tuple[str, Any]]:
    """What in a module can give a network unasked: modules, their classes, functions without arguments."""
    found: list[tuple[str, Any]] = []
    for name, thing in vars(module).items():
        if name.startswith("_"):
            continue
        if isinstance(thing, torch.nn.Module):
            found.append((name, thing))
        elif inspect.isclass(thing):
            if (
                issubclass(thing, torch.nn.Module)
                and thing.__module__ == module.__name__
                and not _required(thing)
            ):
                found.append((name, thing))
        elif inspect.isfunction(thing) and thing.__module__ == module.__name__ and not _required(thing):
            found.append((name, thing))
    return found


def _required(thing: Callable[..., Any]) -> list[str]:
    """The arguments without which a factory cannot be called."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """What other people's code prints goes to stderr: stdout is the answer's."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """A file's neighbours can be imported while it runs, as when Python runs it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


# Weights -------------------------------------------------------------------------------------------


def load_weights(model: torch.nn.Module, path: Path, trust: bool = False) -> None:
    """Fills a network with the weights of a `.safetensors` file, or of a `.pt` file that holds tensors only.

    **Raises** `PatientError` when the file cannot be read without unpickling objects, or does not fit.
    """
    if not path.is_file():
        raise bad_model("missing_file", file=path, near=_near_file(path))
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, weights_only=not trust, map_location="cpu")
    except Exception as error:
        key = "weights_pickle" if "weights_only" in str(error).lower() else "model_unreadable"
        raise bad_model(key, file=path, reason=reason(error)) from error
    if isinstance(state, torch.nn.Module):
        state = state.state_dict()
    if not isinstance(state, dict):
        raise bad_model("not_weights", file=path, found=type(state).__name__)
    for wrapper in ("state_dict", "model_state_dict", "model"):  # as training scripts like to save them
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    own = model.state_dict()
    odd = [
        f"{name}: {tuple(item.shape)} ≠ {tuple(own[name].shape)}"
        for name, item in state.items()
        if name in own and hasattr(item, "shape") and item.shape != own[name].shape
    ]
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    if odd or missing or unknown:
        groups = {"shape": odd, "missing": missing, "unknown": unknown}
        from openheart.i18n import message

        told = "; ".join(
            message(
                f"cli.weights.{kind}",
                names=", ".join(map(str, names[:3])) + (", …" if len(names) > 3 else ""),
            )
            for kind, names in groups.items()
            if names
        )
        raise bad_model("weights_do_not_fit", file=path, reason=told)
    model.load_state_dict(state)
