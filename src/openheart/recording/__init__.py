"""Facts: values, calls, the addresses of numbers, and recordings of runs."""

from openheart.recording.recording import Recording
from openheart.recording.values import (
    Call,
    Element,
    OptimizerGroup,
    OptimizerStep,
    Origin,
    Phase,
    Slot,
    Value,
    values_in,
)

__all__ = [
    "Call",
    "Element",
    "OptimizerGroup",
    "OptimizerStep",
    "Origin",
    "Phase",
    "Recording",
    "Slot",
    "Value",
    "values_in",
]
