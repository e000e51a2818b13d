"""Words, in Spanish and English: no sentence that a person reads stands in code.

    >>> from openheart.i18n import message
    >>> message("verdict.exact", "es"), message("verdict.exact", "en")
    ('exacto', 'exact')
    >>> message("more", "es", count=1016)
    '1016 más'

A catalogue is a flat JSON file of keys and sentences with `{parameters}`. Where number matters, a sentence
is `{"one": …, "other": …}`, chosen by the parameter `count`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from openheart.spelling import harmless

__all__ = [
    "LANGUAGES",
    "Message",
    "catalogue",
    "decimal_mark",
    "language",
    "message",
    "set_decimal_mark",
    "set_language",
]

Language: TypeAlias = Literal["es", "en"]
Sentence: TypeAlias = "str | dict[str, str]"
LANGUAGES: tuple[Language, ...] = ("es", "en")

_chosen: dict[str, str | None] = {"language": None, "decimal": "."}


@cache
def catalogue(lang: str) -> Mapping[str, Sentence]:
    """The sentences of one language, by key."""
    path = Path(__file__).parent / f"{lang}.json"
    sentences: dict[str, Sentence] = json.loads(path.read_text(encoding="utf-8"))
    return sentences


def language(lang: str | None = None) -> str:
    """The language to speak: the one asked for, else the one set, else the machine's (`es*`: es, else en).

    **Raises** `ValueError` for a language that has no catalogue.
    """
    asked = lang or _chosen["language"]
    if asked is not None:
        return _known(asked)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        spoken = os.environ.get(name)
        if spoken:
            return "es" if spoken.lower().startswith("es") else "en"
    return "en"


def set_language(lang: str | None) -> None:
    """Speak `lang` from now on ("es" or "en"); None goes back to the machine's language."""
    _chosen["language"] = None if lang is None else _known(lang)


def decimal_mark() -> str:
    """What stands between a number's whole part and its decimals: "." unless set otherwise."""
    return _chosen["decimal"] or "."


def set_decimal_mark(mark: str) -> None:
    """Print numbers with a decimal "." or ",".

    **Raises** `ValueError` for any other mark.
    """
    if mark not in (".", ","):
        raise ValueError(f"the decimal mark is '.' or ',', not {mark!r}")
    _chosen["decimal"] = mark


def message(key: str, lang: str | None = None, **params: Any) -> str:
    """The sentence for `key`, filled in.

    **Raises** `KeyError` when no catalogue has the key or a parameter is missing.
    """
    spoken = language(lang)
    sentence = catalogue(spoken).get(key)
    if sentence is None:
        raise KeyError(
            f"the catalogue '{spoken}' has no sentence {key!r}: add it to src/openheart/i18n/*.json"
        )
    if isinstance(sentence, dict):
        sentence = sentence["one" if params.get("count") == 1 else "other"]
    return harmless(sentence.format(**params))


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence of the catalogues that is told when it is read: its key, and what fills it in."""

    key: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return message(self.key, **self.params)


def _known(lang: str) -> str:
    short = lang.lower().split("_")[0].split("-")[0]
    if short not in LANGUAGES:
        raise ValueError(f"no catalogue for the language {lang!r}; there are {', '.join(LANGUAGES)}")
    return short
