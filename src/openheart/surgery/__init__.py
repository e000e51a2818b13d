"""Surgery: change any number of a recorded run and see what would have happened."""

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
    "Edit",
    "ablate",
    "add",
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
