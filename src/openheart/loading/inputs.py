"""Inputs from files and from the command line: arrays, tables, images and JSON; never a pickle.

Whole numbers keep their kind here. Whether a network wants them as numbers (float32) or as ids (int64) is
settled when it runs: see `subject.py`.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openheart.i18n import message
from openheart.loading.pickles import holds_pickle
from openheart.loading.table import read_table
from openheart.loading.trouble import bad_input, did_you_mean, reason

__all__ = ["DTYPES", "Inputs", "read_inputs", "read_tensor"]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a network is called with: `model(*args, **kwargs)`; `images` are the args that are pictures."""

    args: tuple[torch.Tensor, ...] = ()
    kwargs: dict[str, torch.Tensor] = field(default_factory=dict)
    images: frozenset[int] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether any of them is made of whole numbers or truth values."""
        return any(not (t.is_floating_point() or t.is_complex()) for t in (*self.args, *self.kwargs.values()))

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Inputs:
        """The same inputs, each changed."""
        return Inputs(
            tuple(change(t) for t in self.args), {k: change(t) for k, t in self.kwargs.items()}, self.images
        )

    def items(self) -> list[tuple[str, torch.Tensor]]:
        """Each with the name by which it is spoken of: `input`, `input_1`, or its keyword."""
        named = [(f"input_{n}" if n else "input", t) for n, t in enumerate(self.args)]
        return named + list(self.kwargs.items())


def read_inputs(given: Iterable[str], dtype: str | None = None, trust: bool = False) -> Inputs:
    """The inputs that a command line names: each a file or JSON, in the order of the network's arguments.

    A JSON object, and a file with several named arrays, give keyword inputs.

    **Raises** `InputError` for a missing, unreadable or empty one, and for a pickle unless `trust`.
    """
    args: list[torch.Tensor] = []
    kwargs: dict[str, torch.Tensor] = {}
    images: set[int] = set()
    for text in given:
        found = _read(text, trust)
        if isinstance(found, dict):
            kwargs.update(found)
        else:
            if Path(text).suffix.lower() in IMAGES:
                images.add(len(args))
            args.extend(found)
    inputs = Inputs(tuple(args), kwargs, frozenset(images))
    if dtype is not None:
        wanted = getattr(torch, dtype)
        inputs = inputs.each(lambda t: t.to(wanted))
    for name, tensor in inputs.items():
        if tensor.numel() == 0:
            raise bad_input("empty", name=name, shape=tuple(tensor.shape))
    return inputs


def read_tensor(text: str, trust: bool = False) -> torch.Tensor:
    """One tensor from a file or JSON: a target.

    **Raises** `InputError` where `read_inputs` does, and when there are several.
    """
    found = _read(text, trust)
    tensors = list(found.values()) if isinstance(found, dict) else found
    if len(tensors) != 1:
        raise bad_input("several", given=_short(text), count=len(tensors))
    return tensors[0]


def _read(text: str, trust: bool) -> list[torch.Tensor] | dict[str, torch.Tensor]:
    stripped = text.strip()
    if stripped[:1] in ("[", "{") or _is_number(stripped):
        return _from_json(stripped, _short(stripped))
    path = Path(text).expanduser()
    if not path.exists():
        folder = path.parent if path.parent.is_dir() else Path()
        near = did_you_mean(path.name, (p.name for p in folder.iterdir()))
        raise bad_input("missing_file", file=path, near=near)
    if not path.is_file():
        raise bad_input("not_a_file", file=path)
    suffix = path.suffix.lower()
    try:
        pickled = holds_pickle(path)
        if pickled and not trust:
            raise bad_input("pickle.input", file=path)
        if pickled:
            return _trusted(path)
        reader = _READERS.get(suffix)
        if reader is None:
            raise bad_input("unknown_input", file=path)
        return reader(path)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        from openheart.errors import InputError

        if isinstance(error, InputError):
            raise
        raise bad_input("unreadable", file=path, reason=reason(error)) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"


# Readers -------------------------------------------------------------------------------------------


def _from_json(text: str, shown: str) -> list[torch.Tensor] | dict[str, torch.Tensor]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise bad_input("json", given=shown, reason=error.msg, column=error.colno) from error
    if isinstance(data, dict):
        return {name: _tensor_of(item, f"{name}: {shown}") for name, item in data.items()}
    return [_tensor_of(data, shown)]


def _tensor_of(data: Any, shown: str) -> torch.Tensor:
    """Nested lists of numbers as a tensor: int64 when all are whole, float32 else, bool for truth values."""
    flat: list[Any] = []
    shape = _shape(data, shown, flat)
    kinds = {type(item) for item in flat}
    if not kinds <= {int, float, bool}:
        odd = next(item for item in flat if type(item) not in (int, float, bool))
        raise bad_input("not_numbers", given=shown, found=repr(odd))
    dtype = torch.bool if kinds == {bool} else torch.int64 if kinds == {int} else torch.float32
    try:
        return torch.tensor(flat, dtype=dtype).reshape(shape)
    except (OverflowError, RuntimeError) as error:
        raise bad_input("json", given=shown, reason=reason(error), column=1) from error


def _shape(data: Any, shown: str, flat: list[Any]) -> tuple[int, ...]:
    if not isinstance(data, list):
        flat.append(data)
        return ()
    inner = [_shape(item, shown, flat) for item in data]
    if len(set(inner)) > 1:
        raise bad_input("ragged", given=shown, shapes=" ≠ ".join(str(s) for s in sorted(set(inner))[:2]))
    return (len(data), *(inner[0] if inner else ()))


def _from_array(array: Any, path: Path) -> torch.Tensor:
    if array.dtype.kind not in "biufc":
        raise bad_input("not_numbers", given=str(path), found=f"dtype {array.dtype}")
    array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    if array.dtype.kind in "iu":
        array = array.astype(np.int64)
    elif array.dtype == np.longdouble:
        array = array.astype(np.float64)
    return torch.from_numpy(array)


def _npy(path: Path) -> list[torch.Tensor]:
    return [_from_array(np.load(path, allow_pickle=False), path)]


def _npz(path: Path) -> list[torch.Tensor] | dict[str, torch.Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return _gathered({name: _from_array(archive[name], path) for name in archive.files}, path)


def _gathered(named: dict[str, torch.Tensor], path: Path) -> list[torch.Tensor] | dict[str, torch.Tensor]:
    """One array, or numpy's own `arr_0, arr_1, …`, are positional; several named ones are keywords."""
    if not named:
        raise bad_input("no_arrays", file=path)
    if len(named) == 1 or all(name.removeprefix("arr_").isdigit() for name in named):
        return list(named.values())
    return named


def _safetensors(path: Path) -> list[torch.Tensor] | dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return _gathered(load_file(path), path)
    except SafetensorError as error:
        raise bad_input("unreadable", file=path, reason=reason(error)) from error


def _csv(path: Path) -> list[torch.Tensor]:
    rows = read_table(path)
    array = np.array(rows, dtype=np.float64)
    whole = bool(array.size) and bool(np.all(np.isfinite(array)) and np.all(array == np.floor(array)))
    if whole and np.all(np.abs(array) < 2**53):
        return [torch.from_numpy(array.astype(np.int64))]
    return [torch.from_numpy(array.astype(np.float32))]


def _json_file(path: Path) -> list[torch.Tensor] | dict[str, torch.Tensor]:
    return _from_json(path.read_text(encoding="utf-8-sig"), str(path))


def _image(path: Path) -> list[torch.Tensor]:
    """A picture as (1, channels, height, width) float32 from 0 (black) to 1 (white); no transparency."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise bad_input("no_pillow", file=path) from error
    try:
        with Image.open(path) as picture:
            gray = picture.mode in ("1", "L", "LA", "I;16", "I", "F")
            array = np.asarray(picture.convert("L" if gray else "RGB"), dtype=np.float32) / np.float32(255)
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise bad_input("unreadable", file=path, reason=reason(error)) from error
    planes = array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
    return [torch.from_numpy(planes)[None]]


def _trusted(path: Path) -> list[torch.Tensor] | dict[str, torch.Tensor]:
    """A pickle that the person at the keyboard vouches for."""
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            loaded = np.load(path, allow_pickle=True)
        else:
            loaded = torch.load(path, weights_only=False, map_location="cpu")
    except Exception as error:
        raise bad_input("unreadable", file=path, reason=reason(error)) from error
    if isinstance(loaded, dict):
        return {str(name): torch.as_tensor(item) for name, item in loaded.items()}
    items = list(loaded) if isinstance(loaded, (list, tuple)) else [loaded]
    try:
        return [torch.as_tensor(np.asarray(i.tolist()) if isinstance(i, np.ndarray) else i) for i in items]
    except (TypeError, ValueError, RuntimeError) as error:
        raise bad_input("not_numbers", given=str(path), found=type(items[0]).__name__) from error


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _csv,
    ".json": _json_file,
    **dict.fromkeys(IMAGES, _image),
}


def warn_of_odd_numbers(inputs: Inputs) -> list[str]:
    """A sentence for each input that holds NaN or infinity: it is explained all the same."""
    found = []
    for name, tensor in inputs.items():
        if tensor.is_floating_point() or tensor.is_complex():
            bad = ~torch.isfinite(tensor)
            count = int(bad.sum())
            if count:
                where = tuple(int(i) for i in bad.nonzero()[0]) if tensor.dim() else ()
                place = name + (f"[{','.join(map(str, where))}]" if where else "")
                value = tensor[where].item()
                spoken = "NaN" if math.isnan(value.real) else "∞" if value.real > 0 else "−∞"
                found.append(
                    message("cli.warning.not_finite", name=name, count=count, address=place, value=spoken)
                )
    return found
