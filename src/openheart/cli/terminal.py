"""Explanations and audits as the terminal shows them."""

from __future__ import annotations

from typing import Any

__all__ = ["rich_of"]


def rich_of(thing: Any, digits: int) -> Any:
    """What rich prints for an explanation or an audit, with `digits` decimals."""
    from openheart.explain import Explanation

    if isinstance(thing, Explanation):
        from openheart.printers.explanation import rich_explanation

        return rich_explanation(thing, digits=digits)
    return thing
