"""A recording as a program in JavaScript, written from the laws: what a page without a server runs.

constants   the scalars that an optimizer works out in Python, as formulas again
plan        each call as functions, what they read, what is kept as recorded, which step is repeated
export      the program's text and its numbers; `to_javascript`
engine.js   the program's face: edits, what is downstream of them, steps
functions.js   what JavaScript lacks: special functions, rounding, how errors pass
"""

from openheart.live.export import LiveProgram, to_javascript

__all__ = ["LiveProgram", "to_javascript"]
