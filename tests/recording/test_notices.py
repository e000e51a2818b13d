"""What there is to know about a recording is kept with it and said on every surface, in both languages."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.printers.schema import problems
from tests.recording.test_forged import put_together, taken_apart
from torch import nn

import openheart as oh
from openheart.i18n import catalogue
from openheart.recording.notices import DETAILS
from openheart.show.document import document

AUDIT = json.loads((Path(__file__).parents[2] / "docs" / "audit.schema.json").read_text(encoding="utf-8"))


def noticed() -> oh.Recording:
    """A run with compiled code, memory that NumPy holds too, and gradients that are copied."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    compiled = torch.compile(model, backend="eager")
    with oh.recording(model) as rec:
        (compiled(torch.ones(1, 3)).sum() + torch.from_numpy(np.zeros(2**18)).sum()).backward()
        optimizer.step()
    return rec


def told(rec: oh.Recording) -> list[tuple[str, dict[str, Any]]]:
    return [(notice.key, notice.details) for notice in rec.notices]


def test_every_notice_is_known_and_has_words() -> None:
    rec = noticed()
    assert {key for key, _ in told(rec)} == {
        "recording.notice.compiled",
        "recording.notice.copied",
        "recording.notice.shared",
    }
    for lang in ("en", "es"):
        assert {key for key in catalogue(lang) if key.startswith("recording.notice.")} == set(DETAILS)
    assert all(set(details) == set(DETAILS[key]) for key, details in told(rec))


def test_a_file_keeps_them_and_marks_the_copies(tmp_path: Path) -> None:
    rec = noticed()
    rec.save(tmp_path / "run.oh")
    again = oh.load(tmp_path / "run.oh")
    assert told(again) == told(rec)
    own = [call.id for call in rec.calls if call.own]
    assert own == [call.id for call in again.calls if call.own]
    assert dict(told(rec))["recording.notice.copied"] == {"count": len(own)}
    assert {rec.calls[number].name for number in own} <= {"clone", "new_empty_strided"}


@pytest.mark.parametrize(
    "false",
    [
        None,
        {"recording.notice.compiled": {}},
        [["recording.notice.compiled"]],
        [["audit.title", {}]],
        [["recording.notice.compiled", {"count": 1}]],
        [["recording.notice.copied", {}]],
        [["recording.notice.copied", {"count": "x"}]],
        [["recording.notice.copied", {"count": 10**6}]],
        [["recording.notice.copied", {"count": True}]],
        [["recording.notice.compiled", {}], ["recording.notice.compiled", {}]],
        [[["recording.notice.compiled"], {}]],
    ],
)
def test_a_file_that_says_what_no_recording_says_is_false(false: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.oh"
    noticed().save(path)
    run, values = taken_apart(path.read_bytes())
    run["notices"] = false
    path.write_bytes(put_together(json.dumps(run).encode(), values))
    with pytest.raises(oh.RecordingFileError, match="notices"):
        oh.load(path)


def test_a_file_from_before_there_were_notices_has_none(tmp_path: Path) -> None:
    path = tmp_path / "run.oh"
    oh.record(nn.Linear(3, 2), torch.ones(1, 3)).save(path)
    run, values = taken_apart(path.read_bytes())
    del run["notices"]
    path.write_bytes(put_together(json.dumps(run).encode(), values))
    assert oh.load(path).notices == ()


def test_what_follows_from_a_run_has_its_notices() -> None:
    rec = noticed()
    assert told(rec.replay()) == told(rec)
    other = rec.intervene({"weight[0,0]": 3.0})
    assert [call.own for call in other.calls] == [call.own for call in rec.calls]
    assert told(other) == told(rec)
    assert told(other.intervene({"weight[0,0]": 1.0})) == told(rec)


@pytest.mark.parametrize("lang", ["en", "es"])
def test_every_surface_says_them_quietly(lang: str) -> None:
    rec = noticed()
    audit = rec.verify()
    assert audit.ok
    made = json.loads(json.dumps(audit.to_dict()))
    assert problems(made, AUDIT, AUDIT) == []
    assert [(item["key"], item["details"]) for item in made["notices"]] == told(rec)
    text = " ".join(audit.text(lang=lang).split())
    page = document(rec, lang, title="x", story="", labels=(), digits=4)
    for notice in audit.notices:
        said = notice.text(lang)
        assert said in text
        assert escape(said) in audit.html(lang=lang)
        assert escape(said) in page
    assert text.startswith("✓"), "a notice is no alarm"
    for body in (audit.html(lang=lang).partition("<article")[2], page.partition("<header")[2]):
        assert "oh-warn" not in body


def test_our_own_work_inside_of_a_recording_is_nobodys(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    alive, read = oh.record(model, torch.ones(1, 3)), oh.record(model, torch.ones(1, 3))
    assert read.calls
    with oh.recording(model) as rec:
        with oh.recording(model, keep="graph") as inside:
            model(torch.ones(1, 3)).sum().backward()
        read.save(tmp_path / "run.oh")
        read.intervene({"0.bias[0]": 1.0}).verify()
        assert torch.equal(inside.value("0.out").data, alive.value("0.out").data)
        optimizer.step()
    assert [key for key, _ in told(rec)] == ["recording.notice.copied"]
