"""ONNX files, through `onnx2torch` (the extra `openheart[onnx]`); a protobuf: nothing in it is run as code.

`onnx2torch` 1.5 knows operator sets up to about 17. Newer files are taken back to 17 by onnx's own converter,
and `Reshape(allowzero=1)`, which PyTorch's exporter writes everywhere, loses its flag where the new shape has
no zero: then both mean the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from openheart.loading.trouble import bad_model, reason

__all__ = ["load_onnx"]

NEWEST = 17


def load_onnx(path: Path) -> torch.nn.Module:
    """The network of an ONNX file as PyTorch modules.

    **Raises** `PatientError` when the extra is not installed, and for a file that it cannot convert.
    """
    try:
        import onnx
        import onnx2torch
        from onnx import version_converter
    except ImportError as error:
        raise bad_model("onnx.missing", file=path, reason=reason(error)) from error
    except RuntimeError as error:  # torchvision, which onnx2torch imports, was built for another PyTorch
        raise bad_model("onnx.missing", file=path, reason=reason(error)) from error
    try:
        graph = onnx.load(str(path))
        onnx.checker.check_model(graph)
        version = next((s.version for s in graph.opset_import if s.domain in ("", "ai.onnx")), NEWEST)
        if version > NEWEST:
            graph = version_converter.convert_version(graph, NEWEST)
        _forget_allowzero(graph, onnx)
        made = onnx2torch.convert(graph)
    except Exception as error:
        raise bad_model("onnx.cannot", file=path, reason=reason(error)) from error
    return made


def _forget_allowzero(graph: Any, onnx: Any) -> None:
    constants = {item.name: item for item in graph.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t for node in graph.graph.node if node.op_type == "Constant"
    }
    for node in graph.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        if 0 not in onnx.numpy_helper.to_array(constants[node.input[1]]):
            kept = [item for item in node.attribute if item.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
