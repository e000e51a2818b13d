"""What the surgery refuses, told in the reader's language.

The exceptions speak English, as Python's do. Each row is what one says, with the places that differ, and the
key of the sentence that says it to a reader of the command line.
"""

from __future__ import annotations

import re
from functools import cache

from openheart.errors import InterventionError
from openheart.i18n import message

__all__ = ["ROWS", "told"]

ROWS: tuple[tuple[str, str], ...] = (
    (
        "call",
        "the edit leads to a call that cannot be: {call} says: {reason}",
    ),
    (
        "around",
        (
            "the edit reaches {call}, which reads memory around its argument: what would lie there "
            "cannot be told"
        ),
    ),
    (
        "slope",
        (
            "the edit changes a sign at {call}, and the run drew no slope for that number; give "
            "fresh_random=True to draw anew"
        ),
    ),
    (
        "result",
        (
            "with this edit {call} gives a result of shape {after}, and the recorded run went on "
            "from {before}: record the edited network instead"
        ),
    ),
    (
        "fixed",
        "the edit reaches {call}, which cannot be run again by itself: record the edited network instead",
    ),
    (
        "path",
        (
            "with this edit {call} tells Python {after} instead of {before}, so the network may take "
            "another path than the one that was recorded: record the edited network instead"
        ),
    ),
    (
        "unread",
        "nothing in this recording reads {name}, so {edit} would change nothing else",
    ),
    (
        "together",
        "{name} is edited and swapped or cut at once: do one after the other",
    ),
    (
        "together",
        "{name} is edited twice at once: do one after the other",
    ),
    (
        "together",
        "{name} is edited and cut at once: do one after the other",
    ),
    (
        "fractions",
        "{edit}: {name} holds {dtype}, which has no fractions",
    ),
    (
        "hold",
        "{edit}: {name} holds {dtype}, which cannot hold the result",
    ),
    (
        "hold",
        "{name} holds {dtype}, which cannot hold {given} ({kind})",
    ),
    (
        "large",
        "{name} holds {dtype}, which has no number as large as {given}",
    ),
    (
        "patch.shape",
        (
            "{name} has the shape {here} ({dtype}) here and {there} ({kind}) in the other recording: "
            "they must be the same"
        ),
    ),
    (
        "numbers",
        "{name} is set to numbers, and {given} is none (a number, a list or a tensor is)",
    ),
    (
        "shape",
        "numbers of shape {given} do not fit {address}, which has the shape {shape}",
    ),
    (
        "not_kept",
        "a value cannot be edited whose numbers are not there: {reason}",
    ),
    (
        "gradient",
        (
            "{name} cannot be edited in this recording: a gradient flows through it{call}, and "
            "the run does not tell which one; edit what goes into it or comes of it, or record the "
            "forward pass alone"
        ),
    ),
    (
        "gradient",
        (
            "{name} cannot be edited in this recording: its gradient is at once the gradient of a "
            "parameter and of something else"
        ),
    ),
    (
        "gradient",
        (
            "{name} cannot be operated on in this recording: autograd, asked again, does not give "
            "the gradients that were recorded for it; record the forward pass alone"
        ),
    ),
    (
        "gradient",
        (
            "the edge from {name} to {to} hands the gradient on as it is, so the recorded backward "
            "pass has no call of its own for it: record the forward pass alone to cut it"
        ),
    ),
    (
        "shares",
        (
            "{name} cannot be edited in this recording: what has this name is not all of the gradient that "
            "arrives there; edit {value}, or record without the checkpoint"
        ),
    ),
    (
        "alias",
        (
            "{name} is the very value {whole}, which is read more than once, and the run does not tell by "
            "which name: edit {value} to change it for all that read it"
        ),
    ),
    (
        "last_step",
        "{address}: the optimizer's last step in this recording is @{last}",
    ),
    (
        "groups",
        "{address}: the optimizer has {count} groups, counted from 0",
    ),
    (
        "option",
        "{address} is {old}; it cannot become {new}",
    ),
    (
        "option",
        "{address}: {option} is {old}",
    ),
    (
        "option_kind",
        "a hyperparameter can be set, scaled or added to; {edit} does something else",
    ),
    (
        "options",
        "{kind} has no option {option} in group {place}",
    ),
    (
        "options",
        (
            "{kind} does not repeat the calls that were recorded of it, so what other options would "
            "give cannot be told: record again with these options"
        ),
    ),
    (
        "options",
        (
            "with these options {kind} would make other calls than the ones that were recorded: "
            "record again with these options"
        ),
    ),
    (
        "options",
        "{kind} cannot make its step with these options: {reason}",
    ),
    (
        "options",
        "the optimizer {kind} is not here to say what its step would be: import {module}",
    ),
    (
        "swap.what",
        (
            "{name} is no module of this network, no class of one, and no operator of its forward "
            "pass; activations that ran: {known}"
        ),
    ),
    (
        "swap.by",
        (
            "{by} cannot take the place of {name}: give a module, a function of a tensor, or one of "
            "identity, {known}"
        ),
    ),
    (
        "swap.shape",
        "{by} gives a tensor of shape {after} ({kind}) in the place of {name}, which gave {before} ({dtype})",
    ),
    (
        "swap.inside",
        "{name} cannot be taken out by itself: {reader} reads what {call} makes inside of it",
    ),
    (
        "swap.updated",
        (
            "{name} has parameters that the optimizer's step updates: record again with what is to "
            "take its place, or record without the step"
        ),
    ),
    (
        "cut.path",
        "nothing leads from {name} to {to} in the forward pass",
    ),
    (
        "file",
        "cannot read the edits in {file}: {reason}",
    ),
    (
        "file.json",
        "{file} is not JSON: {reason}",
    ),
    (
        "file.none",
        "{file} holds no edits; `openheart.write_edits` writes such a file",
    ),
    (
        "file.newer",
        "{file} was written by a newer openheart: upgrade openheart",
    ),
    (
        "file.kind",
        "{file} holds an edit of the kind {kind}; known are {known}",
    ),
    (
        "file.lacks",
        "{file}: the edit {edit} lacks {what}",
    ),
    (
        "file.lacks",
        "{file}: the edit {edit} has no address",
    ),
    (
        "there",
        "the edit reaches numbers that are not there: {reason}",
    ),
    (
        "there",
        "this cannot be edited in this recording: {reason}",
    ),
    (
        "twice",
        (
            "{name} cannot be edited: {call} is computed in the forward pass and again in the backward pass, "
            "as in a checkpoint: edit what goes into the checkpoint or comes of it, or record without it"
        ),
    ),
    (
        "option.number",
        "{address} is {old}; {edit} makes no number of it",
    ),
)


def told(error: InterventionError) -> str:
    """The refusal in the reader's language; in the exception's own words where no row has them."""
    said = str(error)
    for key, pattern in _patterns():
        match = pattern.fullmatch(said)
        if match is not None:
            found = {name: "–" if part == "none" else part for name, part in match.groupdict().items()}
            return message(f"cli.error.edit.refused.{key}", **found)
    return message("cli.error.edit.refused", reason=said)


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((key, re.compile(_pattern(said), re.DOTALL)) for key, said in ROWS)


def _pattern(said: str) -> str:
    parts = re.split(r"\{(\w+)\}", said)
    return "".join(f"(?P<{part}>.*?)" if n % 2 else re.escape(part) for n, part in enumerate(parts))
