"""Surgery: change any number of a recorded run and see what would have happened."""

from openheart.surgery.affine_flow import NotAffineError
from openheart.surgery.collapse import Collapse, collapse
from openheart.surgery.compare import compare
from openheart.surgery.comparison import Comparison
from openheart.surgery.edits import (
    Edit,
    ablate,
    add,
    cut,
    freeze,
    patch,
    read_edits,
    scale,
    set,  # noqa: A004
    swap,
    write_edits,
)
from openheart.surgery.grid import PatchGrid, patch_grid
from openheart.surgery.local_map import LocalMap, local_map
from openheart.surgery.regions import Regions, count_regions
from openheart.surgery.replay import intervene, replay, undo
from openheart.surgery.sweep import Sweep, sweep

__all__ = [
    "Collapse",
    "Comparison",
    "Edit",
    "LocalMap",
    "NotAffineError",
    "PatchGrid",
    "Regions",
    "Sweep",
    "ablate",
    "add",
    "collapse",
    "compare",
    "count_regions",
    "cut",
    "freeze",
    "intervene",
    "local_map",
    "patch",
    "patch_grid",
    "read_edits",
    "replay",
    "scale",
    "set",
    "swap",
    "sweep",
    "undo",
    "write_edits",
]
