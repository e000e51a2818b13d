"""Whether a file with a network does more than say what the network is: all of it is run."""

from __future__ import annotations

import ast
from pathlib import Path

__all__ = ["line_that_works"]


def line_that_works(model: str) -> tuple[str, int] | None:
    """The file of `file.py:name` and its first line that works when the file is run; None where none does.

    To work is a loop, a `with` block, or a call of something that the file itself has made (`main()`,
    `trainer.fit(…)`). Definitions, settings of imported modules (`torch.manual_seed(0)`) and what stands
    under `if __name__ == "__main__"` are none.
    """
    place, _, name = model.rpartition(":")
    path = Path(place if place and not name.endswith(".py") else model).expanduser()
    if path.suffix != ".py" or not path.is_file():
        return None
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return None  # running it says what is wrong
    imported: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            imported |= {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, (ast.For, ast.While, ast.With, ast.AsyncFor, ast.AsyncWith)) or (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Call)
            and _root(statement.value.func) not in imported
        ):
            return path.name, statement.lineno
    return None


def _root(node: ast.expr) -> str | None:
    """The name that `a.b(…).c` begins with."""
    while isinstance(node, (ast.Attribute, ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None
