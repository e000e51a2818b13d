"""The bound on how far two honest runs of many training steps may lie apart, to first order.

One step from the same state differs by no more than the bound that the program carries through that step. A
difference d in the state becomes J·d in the next one, J the step's own derivative. So after T steps

    |dᵢ| ≤ Σₛ Σⱼ |(J_T ⋯ J_{s+1})ᵢⱼ| · boundₛⱼ

with the derivatives taken where the program stood; what is left out is quadratic in d. (An interval carried
through all steps is safe as well, and soon useless: it forgets that a step takes back what the one before it
did.) Source: the variational equation of a discrete dynamical system; Hairer, Nørsett, Wanner, *Solving
Ordinary Differential Equations I*, §I.14 and §II.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, jacrev

State = list[torch.Tensor]
Update = Callable[[State, State, State, float], tuple[State, State]]


def sgd(lr: float, momentum: float = 0.0) -> Update:
    """θ ← θ − lr·b, b ← μ·b + g."""

    def update(theta: State, moments: State, g: State, t: float) -> tuple[State, State]:
        if not momentum:
            return [p - lr * x for p, x in zip(theta, g, strict=True)], []
        moved = [momentum * b + x for b, x in zip(moments, g, strict=True)]
        return [p - lr * b for p, b in zip(theta, moved, strict=True)], moved

    return update


def adam(
    lr: float, decay: float = 0.0, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
) -> Update:
    """Adam, and AdamW where there is a decay; the moments are all m, then all v."""

    def update(theta: State, moments: State, g: State, t: float) -> tuple[State, State]:
        n = len(theta)
        m = [beta1 * a + (1 - beta1) * x for a, x in zip(moments[:n], g, strict=True)]
        v = [beta2 * a + (1 - beta2) * x * x for a, x in zip(moments[n:], g, strict=True)]
        rate, root = lr / (1 - beta1**t), (1 - beta2**t) ** 0.5
        new = [
            p * (1 - lr * decay) - rate * a / (b.sqrt() / root + eps)
            for p, a, b in zip(theta, m, v, strict=True)
        ]
        return new, [*m, *v]

    return update


def rmsprop(lr: float, alpha: float = 0.99, eps: float = 1e-8) -> Update:
    """v ← α·v + (1 − α)·g², θ ← θ − lr·g/(√v + ε)."""

    def update(theta: State, moments: State, g: State, t: float) -> tuple[State, State]:
        v = [alpha * a + (1 - alpha) * x * x for a, x in zip(moments, g, strict=True)]
        return [p - lr * x / (b.sqrt() + eps) for p, x, b in zip(theta, g, v, strict=True)], v

    return update


def accumulated(
    net: nn.Module,
    inputs: Any,
    target: torch.Tensor,
    loss: nn.Module,
    update: Update,
    states: Any,
    bounds: Any,
) -> Any:
    """The bound on each number of the state after the last step.

    `states[s]` is the state that step s found, `bounds[s]` that step's own bound on what it left, flat: the
    parameters in order, then the moments as `update` has them. Step counts go up from 3: two were recorded.
    """
    wide = net.double()
    names = [name for name, _ in wide.named_parameters()]
    shapes = [p.shape for p in wide.parameters()]
    sizes = [int(np.prod(s)) for s in shapes]
    given = [x.double() for x in inputs]
    aim = target.double() if target.is_floating_point() else target
    count = sum(sizes)
    kinds = (len(states[0]) - count) // count

    def split(flat: torch.Tensor) -> State:
        return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]

    def value(flat: torch.Tensor) -> torch.Tensor:
        return loss(functional_call(wide, dict(zip(names, split(flat), strict=True)), tuple(given)), aim)

    slope = torch.func.grad(value)

    def step(state: torch.Tensor, t: float) -> torch.Tensor:
        theta, moments = state[:count], []
        for k in range(kinds):
            moments += split(state[count * (1 + k) : count * (2 + k)])
        new, moved = update(split(theta), moments, split(slope(theta)), t)
        return torch.cat([x.reshape(-1) for x in (*new, *moved)])

    total = np.zeros(len(states[0]))
    onward = np.eye(len(states[0]))
    for s in range(len(states) - 1, -1, -1):
        total += np.abs(onward) @ bounds[s]
        derivative = jacrev(step)(torch.tensor(states[s], dtype=torch.float64), float(s + 3))
        onward = onward @ derivative.detach().numpy()
    return total
