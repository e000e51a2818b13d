"""Surgery: change any number of a recorded run and see what would have happened."""

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
from openheart.surgery.replay import intervene, replay, undo

__all__ = [
    "Comparison",
    "Edit",
    "ablate",
    "add",
    "compare",
    "cut",
    "freeze",
    "intervene",
    "patch",
    "read_edits",
    "replay",
    "scale",
    "set",
    "swap",
    "undo",
    "write_edits",
]
