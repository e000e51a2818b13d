r"""Names as they can be shown, typed and written anywhere: what nobody sees in a name is spelled out.

Module, parameter and argument names may hold any character: line breaks, terminal escapes, marks that turn
the direction of writing, half a surrogate pair. An address is made of them, and an address is printed,
searched for, and written into pages and programs.

    >>> spelled("0.weight"), spelled("a\nb"), spelled("a\\b"), spelled("@1")
    ('0.weight', 'a\\nb', 'a\\\\b', '\\x401')
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["harmless", "shown_whole", "spelled"]


@lru_cache(maxsize=4096)
def spelled(name: str) -> str:
    """A name without invisible characters: different names stay different, and plain ones are as they were.

    So are a first `@`, since an address that begins with one speaks of a training step, and a first blank,
    which nobody sees.
    """
    if name.isprintable() and "\\" not in name and name[:1] not in ("@", " "):
        return name
    out = shown_whole(name.replace("\\", "\\\\"))
    if out.startswith(("@", " ")):
        return f"\\x{ord(out[0]):02x}{out[1:]}"
    return out


def shown_whole(text: str) -> str:
    r"""A text with each invisible character as the escape that Python writes: for one line of output.

    >>> shown_whole("a\u2028b\x1b[31m")
    'a\\u2028b\\x1b[31m'
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")


# Terminal controls, separators that a browser or a script takes for line breaks, marks that turn the
# direction of writing, halves of surrogate pairs. Line breaks, tabs and special spaces are layout.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def harmless(text: str) -> str:
    r"""A text that may have line breaks, without what steers a terminal or turns the direction of writing.

    >>> harmless("one\ntwo \x1b[2J")
    'one\ntwo \\x1b[2J'
    """
    return _HARMFUL.sub(lambda found: _escape(found.group()), text)
