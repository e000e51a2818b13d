"""The catalogues say the same things in every language, and no sentence is missing."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest

from openheart import i18n

SOURCE = Path(i18n.__file__).parents[1]
SPEAKERS = {"message", "Message", "_word", "say", "tell"}
"""The functions that take a key first."""


def fields(sentence: i18n.Sentence) -> set[str]:
    whole = " ".join(sentence.values()) if isinstance(sentence, dict) else sentence
    return {name for _, name, _, _ in string.Formatter().parse(whole) if name}


def test_all_languages_have_the_same_keys() -> None:
    first, *others = (set(i18n.catalogue(lang)) for lang in i18n.LANGUAGES)
    for other in others:
        assert first ^ other == set()


def test_all_languages_fill_in_the_same_parameters() -> None:
    for key, sentence in i18n.catalogue("en").items():
        assert fields(sentence) == fields(i18n.catalogue("es")[key]), key


@pytest.mark.parametrize("lang", i18n.LANGUAGES)
def test_sentences_are_whole(lang: str) -> None:
    for key, sentence in i18n.catalogue(lang).items():
        if isinstance(sentence, dict):
            assert set(sentence) == {"one", "other"}, key
        for said in sentence.values() if isinstance(sentence, dict) else [sentence]:
            assert said.strip(), key


def test_no_voseo_and_no_missing_accents() -> None:
    """A few words that show that a Spanish sentence was not read twice."""
    wrong = re.compile(
        r"\b(vos|tenés|podés|numero|funcion|perdida de|parametro|operacion|calculo cada)\b", re.IGNORECASE
    )
    for key, sentence in i18n.catalogue("es").items():
        assert not wrong.search(str(sentence)), key


def test_one_word_for_one_thing() -> None:
    """A recording is a *registro* and a file an *archivo*, as the glossary and the lessons have it."""
    other = re.compile(
        r"\b(grab(a|o|ó|e|ar|ad[oa]s?|ación|aciones|aron|ando)|ficheros?|hacia delante)\b", re.IGNORECASE
    )
    for key, sentence in i18n.catalogue("es").items():
        assert not other.search(str(sentence)), key


def keys_in_code() -> tuple[set[str], set[str]]:
    """The keys that the code speaks, and the beginnings of those that it puts together."""
    keys, beginnings = set(), set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            first = node.args[0]
            if name not in SPEAKERS:
                continue
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                keys.add(first.value)
            elif isinstance(first, ast.JoinedStr) and isinstance(first.values[0], ast.Constant):
                beginnings.add(str(first.values[0].value))
    return keys, beginnings


def test_no_key_used_in_code_is_missing() -> None:
    known = set(i18n.catalogue("en"))
    keys, beginnings = keys_in_code()
    assert len(keys) > 5
    # "note.given" is completed by the kind of number that was given.
    assert keys - known <= {"note.given"}
    assert {b for b in beginnings if not any(k.startswith(b) for k in known)} == set()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANG": "es_MX.UTF-8"}, "es"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "es_ES.UTF-8"}, "es"),
        ({"LC_ALL": "", "LANG": "es"}, "es"),
        ({}, "en"),
    ],
)
def test_the_machines_language(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert i18n.language() == expected


def test_a_set_language_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    i18n.set_language("es")
    try:
        assert i18n.language() == "es"
        assert i18n.language("en") == "en"
        assert i18n.message("verdict.exact") == "exacto"
    finally:
        i18n.set_language(None)
    assert i18n.language() == "en"


def test_unknown_languages_marks_and_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="'fr'"):
        i18n.set_language("fr")
    with pytest.raises(ValueError, match="';'"):
        i18n.set_decimal_mark(";")
    with pytest.raises(KeyError, match=r"no\.such\.key"):
        i18n.message("no.such.key")


def test_one_and_many() -> None:
    assert i18n.message("audit.disagree", "en", count=1) == "1 number disagrees"
    assert i18n.message("audit.disagree", "es", count=2) == "2 números discrepan"
