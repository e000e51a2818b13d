"""The name that somebody probably meant: one that is near, or none.

A suggestion that is not near helps nobody, so nothing is suggested rather than the least bad name. A name is
near when few keystrokes part the two (a letter more, less, other, or two exchanged), or when one is a whole
part of the other: `weight.grad` of `0.weight.grad`, `net` of `net.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["nearest"]

_PARTS = re.compile(r"[./\s_:-]")
_NUMBERS = re.compile(r"\d+")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest to `name`, or None where none is near; in time linear in their number.

    >>> nearest("0.wieght", ["0.bias", "0.weight"]), nearest("nada", ["2.in.grad", "loss"])
    ('0.weight', None)
    """
    most = min(3, max(1, len(name) // 4))
    folded = name.casefold()
    best: tuple[float, ...] = (most + 1,)
    found: str | None = None
    part: str | None = None
    for other in known:
        if abs(len(other) - len(name)) <= most:
            away = _keystrokes(folded, other.casefold(), most)
            if away <= most and 2 * away < max(len(name), len(other)):
                begins = folded.startswith(other.casefold()) or other.casefold().startswith(folded)
                rank = (away, _apart(name, other), not begins, abs(len(other) - len(name)))
                if rank < best:
                    best, found = rank, other
        if found is None and part is None and len(name) > 2 and _is_part(folded, other.casefold()):
            part = other
    return found or part


def _keystrokes(one: str, other: str, most: int) -> int:
    """How many letters are more, less, other or exchanged; anything above `most` where it is above."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    end = 0
    while end < min(len(one), len(other)) and one[-1 - end] == other[-1 - end]:
        end += 1
    one, other = one[: len(one) - end], other[: len(other) - end]
    if (
        max(len(one), len(other)) > most + min(len(one), len(other))
        or min(len(one), len(other)) > 4 * most + 8
    ):
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        after = [i]
        for j, theirs in enumerate(other, 1):
            cost = min(row[j] + 1, after[j - 1] + 1, row[j - 1] + (letter != theirs))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == theirs:
                cost = min(cost, before[j - 2] + 1)
            after.append(cost)
        if min(after) > most:
            return most + 1
        before, row = row, after
    return row[-1]


def _apart(one: str, other: str) -> float:
    """How far the numbers in two names lie apart: of equally near names, `1.out` is nearest to `2.out`."""
    mine, theirs = _NUMBERS.findall(one), _NUMBERS.findall(other)
    if len(mine) != len(theirs):
        return 10.0**9
    return float(sum(min(abs(int(a[:9]) - int(b[:9])), 10**9) for a, b in zip(mine, theirs, strict=True)))


def _is_part(name: str, other: str) -> bool:
    """Whether one name is the other's beginning or end, up to where a part ends."""
    short, long = sorted((name, other), key=len)
    if len(short) < 3 or len(short) == len(long):
        return False
    begins = long.startswith(short) and _PARTS.match(long[len(short)]) is not None
    return begins or (long.endswith(short) and _PARTS.match(long[-len(short) - 1]) is not None)
