"""Training steps repeated: every optimizer, 500 steps beside PyTorch's own, what cannot be and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.live import accumulated as bound
from tests.live.running import HUGE, in_node, numbers, off, trained
from torch import nn

import openheart as oh
from openheart.patients import patient

STEPS = 500

TRACK = """
// Each step from the program's own state, taken as exact: how far one honest step may lie from it.
const p = create(), names = NAMES, states = [], bounds = [];
p.step(1);
for (let s = 0; s < COUNT; s++) {
  for (const name of names) p.setValue("@1 " + name, p.value("@1 " + name).data);
  states.push(names.flatMap((name) => [...p.value("@1 " + name).data]));
  bounds.push(names.flatMap((name) => [...p.value("@1 " + name + ".after").bound]));
  if (s < COUNT - 1) p.step(1);
}
const q = create();
q.step(COUNT);
print({ states, bounds, left: names.flatMap((name) => [...p.value("@1 " + name + ".after").data]),
  quick: names.flatMap((name) => [...q.value("@1 " + name + ".after").data]), steps: q.steps });
"""

SGD = (lambda p: torch.optim.SGD(p, lr=0.01), bound.sgd(0.01), ())
MOMENTUM = (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), bound.sgd(0.01, 0.9), ("momentum_buffer",))
ADAM = (lambda p: torch.optim.Adam(p, lr=0.01), bound.adam(0.01), ("exp_avg", "exp_avg_sq"))
ADAMW = (
    lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    bound.adam(0.01, 0.1),
    ("exp_avg", "exp_avg_sq"),
)
RMSPROP = (lambda p: torch.optim.RMSprop(p, lr=0.001), bound.rmsprop(0.001), ("square_avg",))

SMOOTH = replace(
    patient("iris"), network=lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), trained=False
)

# Nets and optimizers for which the bound stays far below what training moves. Where a denominator √v comes
# near zero (Adam on a linear net that fits its one sample), or a ReLU's input does, no bound of this kind
# says much: those are held to the bound of one step at a time.
RUNS = {
    "hand, SGD": ("hand", SGD),
    "seed, SGD": ("seed", SGD),
    "seed-sigmoid, SGD": ("seed-sigmoid", SGD),
    "seed-softmax, Adam": ("seed-softmax", ADAM),
    "seed-softmax, RMSprop": ("seed-softmax", RMSPROP),
    "xor, SGD": ("xor", SGD),
    "xor, momentum": ("xor", MOMENTUM),
    "iris with tanh, SGD": (SMOOTH, SGD),
    "iris with tanh, momentum": (SMOOTH, MOMENTUM),
    "iris with tanh, Adam": (SMOOTH, ADAM),
    "xor, AdamW": ("xor", ADAMW),
}


@pytest.mark.parametrize("run", RUNS)
def test_500_steps_stay_within_the_accumulated_bound(run: str, tmp_path: Path) -> None:
    who, (make, update, moments) = RUNS[run]
    rec, net, step = trained(who, steps=2, optimizer=make, initial=True)
    parameters = [name for name, _ in net.named_parameters()]
    names = [*parameters, *(f"{name}.{moment}" for moment in moments for name in parameters)]
    program = oh.to_javascript(rec, bounds=True)
    said = in_node(tmp_path, program, TRACK.replace("NAMES", repr(names)).replace("COUNT", str(STEPS)))
    assert said["steps"] == STEPS
    assert said["quick"] == said["left"], "a step at a time, and all at once: the same numbers"
    start = [p.detach().clone() for p in net.parameters()]
    for _ in range(STEPS):
        step()
    wanted = np.concatenate([p.detach().numpy().reshape(-1) for p in net.parameters()]).astype(float)
    states, bounds = np.array(said["states"]), np.array([numbers(row) for row in said["bounds"]])
    assert np.isfinite(bounds).all()
    chosen = patient(who) if isinstance(who, str) else who
    limit = bound.accumulated(
        chosen.network(), chosen.inputs(), chosen.target(), chosen.loss(), update, states, bounds
    )[: len(wanted)]
    apart = off(wanted, numbers(said["left"])[: len(wanted)])
    moved = max(float((a - b.detach()).abs().max()) for a, b in zip(start, net.parameters(), strict=True))
    print(f"{run}: apart {apart.max():.2e}, bound {limit.max():.2e}, training moved {moved:.2e}")
    assert (apart <= limit).all(), (apart.max(), limit[apart.argmax()])
    assert limit.max() < moved, "a bound that says something: far below what training moves"


@pytest.mark.parametrize(
    ("who", "optimizer", "moments"),
    [
        ("iris", "Adam", ("exp_avg", "exp_avg_sq")),
        ("digits-mlp", "momentum", ("momentum_buffer",)),
        ("seed-relu", "SGD", ()),
        ("seed-batch", "SGD", ()),
    ],
)
def test_500_steps_are_each_within_the_bound_of_one(
    who: str, optimizer: str, moments: tuple[str, ...], tmp_path: Path
) -> None:
    """From the program's own state, each 100th step: PyTorch's one step from there, and the program's."""
    make = {"Adam": ADAM, "momentum": MOMENTUM, "SGD": (lambda p: torch.optim.SGD(p, lr=0.0005),)}[optimizer][
        0
    ]
    rec, net, step = trained(who, steps=2, optimizer=make, training=False, initial=True)
    rule = step.__closure__
    assert rule is not None
    chosen = next(c.cell_contents for c in rule if isinstance(c.cell_contents, torch.optim.Optimizer))
    parameters = dict(net.named_parameters())
    names = [*parameters, *(f"{name}.{moment}" for moment in moments for name in parameters)]
    said = in_node(
        tmp_path,
        oh.to_javascript(rec, bounds=True, limit=HUGE),
        f"""
        const p = create(), names = {names!r}, all = [];
        for (let s = 0; s < 5; s++) {{
          p.step(100);
          for (const name of names) p.setValue("@1 " + name, p.value("@1 " + name).data);
          all.push(names.map((name) => [p.value("@1 " + name).data, p.value("@1 " + name + ".after").data,
            p.value("@1 " + name + ".after").bound]));
        }}
        print(all);""",
    )
    for number, rows in enumerate(said):
        state = dict(zip(names, rows, strict=True))
        for name, parameter in parameters.items():
            parameter.data.copy_(torch.tensor(numbers(state[name][0])).view_as(parameter))
            for moment in moments:
                kept = chosen.state[parameter][moment]
                kept.copy_(torch.tensor(numbers(state[f"{name}.{moment}"][0])).view_as(kept))
            if "step" in chosen.state[parameter]:
                chosen.state[parameter]["step"].fill_(1 + 100 * (number + 1))
        step()
        for name, parameter in parameters.items():
            _, found, limit = (numbers(x) for x in state[name])
            apart = off(parameter.detach().numpy().reshape(-1).astype(float), found)
            assert (apart <= limit).all(), (number, name, apart.max())
            assert np.median(limit) < 0.01 / 3, "a bound that says something: less than a step of Adam"


OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum, decay, Nesterov": lambda p: torch.optim.SGD(
        p, lr=0.05, momentum=0.8, weight_decay=0.01, nesterov=True
    ),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, dampening=0.3),
    "SGD foreach": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, foreach=True),
    "SGD fused": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.02),
    "Adam, decay, amsgrad": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.01, amsgrad=True),
    "Adam foreach": lambda p: torch.optim.Adam(p, lr=0.02, foreach=True),
    "Adam fused": lambda p: torch.optim.Adam(p, lr=0.02, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1, fused=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "RMSprop centered, momentum": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.01),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.7),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.02),
}


@pytest.mark.parametrize("which", OPTIMIZERS)
def test_every_optimizer_is_repeated(which: str, tmp_path: Path) -> None:
    """40 steps: a wrong scalar (a bias correction that stands still, say) would be off a thousandfold."""
    rec, net, step = trained("iris", steps=2, optimizer=OPTIMIZERS[which], initial=True)
    program = oh.to_javascript(rec)
    assert program.refused is None
    names = [name for name, _ in net.named_parameters()]
    said = in_node(
        tmp_path,
        program,
        f"const p = create(), names = {names!r}; p.step(40);"
        "print(names.map((name) => p.value('@1 ' + name + '.after').data));",
    )
    start = [p.detach().clone() for p in net.parameters()]
    for _ in range(40):
        step()
    for began, wanted, found in zip(start, net.parameters(), said, strict=True):
        moved = float((wanted.detach() - began).abs().max())
        apart = float(off(wanted.detach().numpy().reshape(-1), numbers(found)).max())
        assert apart < 2e-4 * max(moved, 1e-3), (which, apart, moved)


@pytest.mark.parametrize(
    ("which", "option", "other"),
    [
        ("SGD", "lr", lambda p: torch.optim.SGD(p, lr=0.01)),
        ("Adam", "lr", lambda p: torch.optim.Adam(p, lr=0.003)),
        ("AdamW", "weight_decay", lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.3)),
        ("RMSprop", "alpha", lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9)),
    ],
)
def test_an_option_is_set(which: str, option: str, other: Any, tmp_path: Path) -> None:
    rec, _, _ = trained("iris", optimizer=OPTIMIZERS[which])
    wanted, _, _ = trained("iris", optimizer=other)
    number = other([nn.Parameter(torch.zeros(1))]).defaults[option]
    program = oh.to_javascript(rec, bounds=True)
    assert option in program.options
    said = in_node(
        tmp_path,
        program,
        f"const p = create(), old = p.value('0.weight.after').data; p.setOption('{option}', {number});"
        "const now = p.value('0.weight.after'), loss = p.get('loss');"
        f"p.setOption('{option}', {program.options[option]});"
        "print({ old, now, back: p.value('0.weight.after').data });",
    )
    target = wanted.value("0.weight.after").array.reshape(-1).astype(float)
    apart = off(target, numbers(said["now"]["data"]))
    assert (apart <= numbers(said["now"]["bound"])).all()
    # A bound may be infinite where √v is near zero: these are held to float32's own digits as well.
    assert apart.max() < 1e-5
    assert off(target, numbers(said["old"])).max() > 1e-4
    assert said["back"] == said["old"]


def test_a_first_step_that_later_ones_do_not_repeat_is_refused(tmp_path: Path) -> None:
    rec, _, _ = trained("seed-batch")  # momentum: the first step copies the gradient
    program = oh.to_javascript(rec)
    assert program.refused is not None
    assert "record two steps" in program.refused
    said = in_node(
        tmp_path,
        program,
        "const p = create(); let told; try { p.step(); } catch (e) { told = e.message; } print(told);",
    )
    assert said == f"this step cannot be repeated: {program.refused}"


def test_a_scalar_that_no_formula_gives_is_refused() -> None:
    rec, _, _ = trained("iris", steps=2, optimizer=lambda p: torch.optim.NAdam(p, lr=0.01))
    program = oh.to_javascript(rec)
    assert program.refused is not None
    assert "no formula gives the scalar" in program.refused


def test_gradients_that_add_up_are_refused() -> None:
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    optimizer, x = torch.optim.SGD(net.parameters(), lr=0.1), torch.randn(3, 2)
    with oh.recording(net) as rec:
        for _ in range(2):
            net(x).sum().backward()  # no zero_grad
            optimizer.step()
    refused = oh.to_javascript(rec).refused
    assert refused is not None
    assert "earlier step" in refused


def test_a_batch_may_be_replaced_between_steps(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer, loss = torch.optim.SGD(net.parameters(), lr=0.1), nn.MSELoss()
    batches = [(torch.randn(5, 2), torch.randn(5, 1)) for _ in range(6)]

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()

    with oh.recording(net) as rec:
        step(*batches[0])
    for batch in batches[1:]:
        step(*batch)
    later = [[x.reshape(-1).tolist(), y.reshape(-1).tolist()] for x, y in batches[1:]]
    said = in_node(
        tmp_path,
        oh.to_javascript(rec),
        f"const p = create(); for (const [x, y] of {later!r}) "
        "{ p.step(); p.setValue('input', x).setValue('target', y); } print(p.value('0.weight.after').data);",
    )
    assert off(net[0].weight.detach().numpy().reshape(-1), numbers(said)).max() < 1e-6


def test_an_ablation_stays_through_the_steps_and_an_edited_weight_is_where_they_start(tmp_path: Path) -> None:
    rec, _, _ = trained("xor", optimizer=SGD[0])
    said = in_node(
        tmp_path,
        oh.to_javascript(rec, limit=HUGE),
        """
        const p = create(), w = p.value("0.weight").data;
        p.set("0.weight[0,0]", 3).set("1.out[2,1]", 0).step(5);
        const after = [p.get("1.out[2,1]"), p.get("0.weight[0,0]")];
        print({ after, steps: p.steps, reset: [p.reset().steps, p.value("0.weight").data], w });
        """,
    )
    assert said["after"][0] == 0
    assert 2.5 < said["after"][1] < 3.5
    assert said["steps"] == 5
    assert said["reset"] == [0, said["w"]]
