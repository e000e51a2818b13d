"""Replay and intervene: the recorded program again, with numbers changed, as a recording of its own."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from openheart.errors import InterventionError, OpaqueError
from openheart.recording import Recording
from openheart.recording.soundness import sound
from openheart.surgery.assembly import assembled, output_of
from openheart.surgery.edits import Edit, edits_from
from openheart.surgery.operate import plan_of_edits
from openheart.surgery.plan import Plan
from openheart.surgery.program import program_of
from openheart.surgery.running import Note, Run

__all__ = ["intervene", "replay", "undo"]


@sound
def replay(recording: Recording, edits: Any = None, *, fresh_random: bool = False) -> Recording:
    """Runs a recorded program again: forward, loss, backward and step.

    With edits only what follows from them is run; all else is shared with the recording, not copied. Without
    edits everything is run again, and every number comes out bit for bit as it was recorded.

    Args:
        recording: what ran.
        edits: what to change: a dict by address, an edit, or a list of these (see `openheart.intervene`).
        fresh_random: draw anew what was drawn at random; otherwise the recorded draws are kept, so that what
            comes out differs by the edits alone.

    Returns:
        A new `Recording`, with the same addresses; `.before` is the one that it comes from.

    Raises:
        AddressError: nothing has an edit's address.
        InterventionError: an edit cannot be made (its shape, its dtype, a value that nothing reads), or it
            leads where nothing was recorded (another branch, another shape).

    >>> import torch, openheart as oh
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ReLU())
    >>> rec = oh.record(net, torch.ones(1, 2))
    >>> rec.replay({"0.bias": 1.0, "0.weight": 0.5}).output
    tensor([[2.]])
    """
    given = edits_from(edits)
    program = program_of(recording)
    plan = plan_of_edits(recording, program, given) if given else Plan(next_id=len(program.values))
    run = Run(recording, program, plan, whole=not given, fresh_random=fresh_random)
    try:
        run.go()
    except OpaqueError as error:
        raise InterventionError("error.edit.reaches", reason=error) from error
    result = Recording(model=recording.model)
    result._later = lambda: assembled(run)
    result.output = output_of(run)
    result.before = recording
    result._file = recording._file
    result.edits = given
    result.notes = tuple(run.notes)
    if given and (gaps := list(_gaps(recording.steps))):
        result.notes += (Note("surgery.note.gap", {"steps": ", ".join(gaps)}),)
    return result


def _gaps(steps: list[int]) -> Iterator[str]:
    """The steps that are not held between these, as ranges: a flight recorder's."""
    for one, following in pairwise(steps):
        if following > one + 1:
            yield f"{one + 1}–{following - 1}" if following > one + 2 else str(one + 1)


def intervene(recording: Recording, edits: Any, *, fresh_random: bool = False) -> Recording:
    """What would have happened: a new recording of the run with some of its numbers changed.

    `edits` maps addresses to what they become: `{"0.weight[1,0]": 2.0}`, a slice `{"0.out[:,2]": 0.0}`, a
    tensor, a function of the value, or one of `oh.set`, `oh.scale`, `oh.add`, `oh.ablate`, `oh.freeze`,
    `oh.patch`, `oh.swap`; `oh.cut(source, destination)` and the others with addresses of their own stand by
    themselves or in a list. What can be edited: parameters, buffers, inputs, what any call made, gradients,
    and the hyperparameters of an optimizer's step (`"lr"`, `"@2 lr"`, `"optimizer.betas[0]"`).

    An edit of an activation is what a forward hook would do: the gradient of what was set by hand is cut off,
    that of what was scaled is scaled. Interventions compose (`rec.intervene(a).intervene(b)`), and `undo`
    takes them back.

    Raises:
        AddressError, InterventionError: as `replay`.

    >>> import torch, openheart as oh
    >>> rec = oh.record(torch.nn.Linear(2, 1), torch.ones(1, 2))
    >>> changed = rec.intervene({"weight": 0.0, "bias[0]": lambda bias: bias * 0 + 3})
    >>> changed.output
    tensor([[3.]])
    >>> changed.before is rec
    True
    """
    if not edits_from(edits):
        raise InterventionError("error.edit.none")
    return replay(recording, edits, fresh_random=fresh_random)


def undo(recording: Recording, what: int | str = 1) -> Recording:
    """Takes back the last `what` interventions, or every edit of one address.

    Raises:
        InterventionError: there are not as many, or nothing was edited there.
    """
    if isinstance(what, int):
        result: Recording | None = recording
        for _ in range(what):
            result = result.before if result is not None else None
        if result is None or what < 1:
            raise InterventionError("error.undo.count", count=what)
        return result
    chain: list[tuple[Edit, ...]] = []
    first = recording
    while first.before is not None:
        chain.append(first.edits)
        first = first.before
    kept = [tuple(edit for edit in edits if edit.address != what) for edits in reversed(chain)]
    if sum(map(len, kept)) == sum(map(len, chain)):
        edited = ", ".join(sorted({str(edit.address) for edits in chain for edit in edits})) or "nothing"
        raise InterventionError("error.undo.what", what=what, edited=edited)
    for edits in kept:
        if edits:
            first = replay(first, list(edits))
    return first
