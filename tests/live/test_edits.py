"""Edits: a program after an edit is PyTorch after the same edit, and computes only what is downstream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.live.running import HUGE, in_node, numbers, off, recorded, trained

import openheart as oh
from openheart.patients import patient, patients

TAKE = {"tiny-gpt": 1, "digits-cnn": 2, "lstm": 2}
"""Two runs of PyTorch draw alike from one seed, and a program keeps the draws."""


def edited_run(who: str, changes: dict[str, list[tuple[tuple[int, ...], float]]]) -> Any:
    """PyTorch's own training step with other weights, recorded."""
    chosen = patient(who)
    torch.manual_seed(0)
    net = chosen.build()
    take = TAKE.get(who)
    inputs, target, loss = [x[:take] for x in chosen.inputs()], chosen.target()[:take], chosen.loss()
    optimizer = chosen.optimizer(net.parameters())
    with torch.no_grad():
        for name, cells in changes.items():
            for at, number in cells:
                net.get_parameter(name)[at] = number
    with oh.recording(net) as rec:
        optimizer.zero_grad()
        loss(net(*inputs), target).backward()
        optimizer.step()
    return rec


@pytest.mark.parametrize("who", [p.name for p in patients()])
def test_edited_weights_give_what_pytorch_gives_with_them(who: str, tmp_path: Path) -> None:
    rec, net, _ = trained(who, take=TAKE.get(who))
    draw = np.random.default_rng(5)
    changes: dict[str, list[tuple[tuple[int, ...], float]]] = {}
    for name, parameter in net.named_parameters():
        at = tuple(int(draw.integers(n)) for n in parameter.shape)
        changes[name] = [(at, float(np.float32(draw.normal())))]
    wanted = edited_run(who, changes)
    edits = [
        (f"{name}[{','.join(map(str, at))}]", number)
        for name, cells in changes.items()
        for at, number in cells
    ]
    program = oh.to_javascript(rec, bounds=True, limit=HUGE)
    said = in_node(
        tmp_path,
        program,
        f"const p = create(); p.run(); for (const [a, x] of {json.dumps(edits)}) p.set(a, x);"
        "const now = p.addresses().map((a) => p.value(a)); p.clear();"
        "const q = create(), text = (r, a) => JSON.stringify(r.value(a));"
        "const back = p.addresses().every((a) => text(p, a) === text(q, a));"
        "print({ now, back });",
    )
    assert said["back"], "clear() takes the edits back to the last bit"
    assert len(wanted.values) == len(rec.values)
    moved = 0
    for value, before, found in zip(wanted.values, rec.values, said["now"], strict=True):
        exact = recorded(value)
        if exact is None or found["data"] is None:
            continue
        apart = off(exact, numbers(found["data"]))
        assert (apart <= numbers(found["bound"])).all(), (wanted.name(value), apart.max())
        old = recorded(before)
        moved += int(old is not None and not np.array_equal(old, exact))
    assert moved > len(changes), "the edits moved something"


def test_an_edit_of_an_activation_is_followed_downstream_only(tmp_path: Path) -> None:
    rec, _, _ = trained("seed")
    said = in_node(
        tmp_path,
        oh.to_javascript(rec),
        """
        const p = create(), before = Object.fromEntries(p.addresses().map((a) => [a, p.value(a).data]));
        p.set("0.out[0,2]", 7);
        const after = Object.fromEntries(p.addresses().map((a) => [a, p.value(a).data]));
        print({ before, after });
        """,
    )
    before, after = said["before"], said["after"]
    assert after["0.out"][:2] == before["0.out"][:2]
    assert after["0.out"][2] == 7
    w, b = rec.value("1.weight").array, rec.value("1.bias").array
    hidden = np.array(after["0.out"])
    assert after["1.out"][0] == pytest.approx(float(hidden @ w[0] + b[0]), rel=1e-6)
    assert after["0.weight"] == before["0.weight"]
    assert after["1.weight.grad"][2] != before["1.weight.grad"][2]
    error = 2 * (after["1.out"][0] - after["target"][0])
    assert after["1.weight.grad"][2] == pytest.approx(error * 7, rel=1e-6)
    assert after["1.weight.grad"][0] == pytest.approx(error * hidden[0], rel=1e-6)


def test_an_edit_of_a_gradient_changes_the_step_and_nothing_else(tmp_path: Path) -> None:
    rec, _, _ = trained("hand")
    said = in_node(
        tmp_path,
        oh.to_javascript(rec),
        """
        const p = create(), loss = p.get("loss"), old = p.get("0.weight[1,0]");
        p.set("0.weight.grad[1,0]", 100);
        print({ same: p.get("loss") === loss, moved: p.get("0.weight.after[1,0]") - old });
        """,
    )
    assert said == {"same": True, "moved": pytest.approx(-1.0)}


def test_only_what_is_downstream_is_computed_again(tmp_path: Path) -> None:
    rec, _, _ = trained("seed")
    counted = oh.to_javascript(rec).source.replace(
        "          run(v, e, o);", "          run(v, e, o); made.push(id);"
    )
    said = in_node(
        tmp_path,
        counted.replace("let steps = 0,", "const made = (globalThis.made = []); let steps = 0,"),
        """
        const p = create(); p.run(); const all = globalThis.made.length;
        globalThis.made.length = 0; p.run(); const none = globalThis.made.length;
        p.set("1.bias[0]", 0.5).run();
        print({ all, none, names: globalThis.made.map((id) => p.addresses()[id]) });
        """,
    )
    assert said["none"] == 0
    assert 0 < len(said["names"]) < said["all"]
    assert "0.out" not in said["names"]
    assert {"1.out", "loss", "1.bias.grad", "1.bias.after"} <= set(said["names"])


def test_addresses_that_lead_nowhere_say_so(tmp_path: Path) -> None:
    rec, _, _ = trained("hand")
    said = in_node(
        tmp_path,
        oh.to_javascript(rec),
        """
        const p = create(), told = [];
        for (const wrong of [() => p.get("0.out[0,9]"), () => p.get("nobody[0]"), () => p.get("0.out"),
          () => p.set("0.weight", 1), () => p.setValue("0.weight", [1]), () => p.setOption("warmth", 1)]) {
          try { wrong(); told.push(null); } catch (error) { told.push(error.message); }
        }
        print(told);
        """,
    )
    assert said[0] == 'no number "0.out[0,9]": the shape of 0.out is (1, 3)'
    assert said[1] == 'no value is called "nobody"'
    assert all(said), said
    assert "lr" in said[5]


def test_what_is_kept_as_recorded_is_never_passed_off_as_computed(tmp_path: Path) -> None:
    """A law that is missing, and a number that Python took: what an edit would change is refused."""
    w = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)

    class Secret(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.matrix_exp(torch.diag(x)).diagonal()

        @staticmethod
        def backward(ctx: Any, *given: Any) -> Any:
            return given[0]

    with oh.recording() as rec:
        doubled = w * 2
        hidden = Secret.apply(doubled)
        (hidden.sum() * doubled.sum().item()).detach()
    program = oh.to_javascript(rec)
    assert "opaque" in program.frozen.values()
    assert program.notes and "Python took the number" in program.notes[0]
    opaque = [a for a, why in program.frozen.items() if why == "opaque"]
    last = rec.name(rec.calls[-1].outputs[0])
    leaf = rec.name(rec.values[0])
    said = in_node(
        tmp_path,
        program,
        f"""
        const p = create(), opaque = {opaque[-1]!r}, last = {last!r};
        const before = [p.value(opaque), p.value(last)];
        p.set("{leaf}[0]", 5);
        const after = [p.value(opaque), p.value(last)];
        let told = null; try {{ p.get(last); }} catch (error) {{ told = error.message; }}
        p.clear();
        print({{ before, after, told, back: p.value(last) }});
        """,
    )
    assert [x["stale"] for x in said["before"]] == [False, False]
    assert said["before"][0]["frozen"] == "opaque"
    assert [(x["stale"], x["data"]) for x in said["after"]] == [(True, None), (True, None)]
    assert "kept as recorded" in said["told"]
    assert said["back"] == said["before"][1]
