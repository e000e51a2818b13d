"""The page of a run: self-contained, every link leads somewhere, both languages."""

import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
import torch

import openheart as oh
from openheart.patients import patient
from openheart.show import to_html

VOID = {"meta", "br", "img", "input", "link", "hr", "wbr", "col"}


class Reader(HTMLParser):
    """Ids, links and open tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes) -> None:
        found = dict(attributes)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(unquote(found["href"]))

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def read(path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.mark.parametrize(
    ("name", "lang"),
    [
        ("seed", "es"),
        ("seed", "en"),
        ("iris", "es"),
        ("digits-cnn", "en"),
        ("tiny-gpt", "es"),
        ("lstm", "en"),
        ("xor", "es"),
    ],
)
def test_pages(call, home, name, lang) -> None:
    answer = call("show", name, "-o", "page.html", "--lang", lang)
    assert answer.code == 0, answer.err
    assert str(home / "page.html") in answer.out
    text = (home / "page.html").read_text(encoding="utf-8")
    reader = read(home / "page.html")
    assert f'<html lang="{lang}">' in text
    assert len(reader.ids) == len(set(reader.ids))
    targets = {f"#{each}" for each in reader.ids} | {"#_"}  # "#_" closes a sheet: it is nowhere
    assert set(reader.links) <= targets
    assert "script" not in reader.tags
    assert "link" not in reader.tags
    outside = re.findall(
        r"(?:https?:)?//[^\s\"'<>]+", unescape(text).replace("http://www.w3.org/1998/Math/MathML", "")
    )
    assert outside == []


def test_tiny_network_has_every_number_explained(tmp_path) -> None:
    from openheart.loading import patient_subject

    rec = patient_subject("seed").run(1).recording
    reader = read(to_html(rec, tmp_path / "seed.html", "en"))
    for address in (
        "0.out[0,2]",
        "1.out[0,0]",
        "loss",
        "0.weight.grad[2,1]",
        "0.weight.after[0,0]",
        "1.bias.grad[0]",
    ):
        assert address in reader.ids


def test_walk_on_from_the_output(tmp_path) -> None:
    """In a larger network too, the output's largest contributions can be opened."""
    subject = patient("digits-mlp")
    rec = oh.record(subject.build(training=False), *subject.inputs())
    reader = read(to_html(rec, tmp_path / "page.html", "en"))
    explanation = rec.explain("3.out[0,0]")
    factors = [a for term in explanation.terms[:3] for a, _ in term.factors if a and a.startswith("2.out")]
    for address in factors:
        assert rec.explain(address).address in reader.ids or address in reader.ids


def test_forward_only_and_own_network(call, home) -> None:
    assert call("show", "net.py:Net", "--input", "x.npy").code == 0
    reader = read(home / "openheart-net.html")
    assert "fc2.out[0,0]" in reader.ids
    assert call("show", "seed", "--steps", "0", "-o", "forward.html").code == 0
    assert "loss" not in read(home / "forward.html").ids


def test_names_are_escaped(tmp_path) -> None:
    model = torch.nn.Sequential()
    model.add_module("<b>&\"'", torch.nn.Linear(2, 2))
    rec = oh.record(model, torch.ones(1, 2))
    path = to_html(rec, tmp_path / "page.html", "en", title="<i>title</i>", story="a < b")
    read(path)
    text = path.read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "<i>title" not in text
    assert "a &lt; b" in text


def test_recording_face(tmp_path) -> None:
    rec = oh.record(torch.nn.Linear(2, 1), torch.ones(1, 2))
    rec.to_html(tmp_path / "a.html")
    shown = oh.show(rec, tmp_path / "b.html", "es")
    assert shown.path == (tmp_path / "b.html").resolve()
    assert "<iframe" in shown._repr_html_()
    with oh.recording() as plain:
        torch.ones(3).exp().sum()
    read(to_html(plain, tmp_path / "c.html", "en"))


def test_saved_and_odd_runs(tmp_path) -> None:
    rec = oh.record(torch.nn.Linear(2, 1), torch.tensor([[float("nan"), float("inf")]]))
    read(to_html(rec, tmp_path / "nan.html", "en"))
    rec.save(tmp_path / "run.oh")
    read(to_html(oh.load(tmp_path / "run.oh"), tmp_path / "loaded.html", "es"))


def test_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    rec = oh.record(torch.nn.Linear(2, 1), torch.ones(1, 2))
    path = tmp_path / "page.html"
    path.write_text("before", encoding="utf-8")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        to_html(rec, path, "en")
    assert path.read_text(encoding="utf-8") == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
