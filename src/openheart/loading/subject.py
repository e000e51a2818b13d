"""A subject: a network, what it is called with and, for a training step, loss, target and optimizer."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from openheart.errors import InputError
from openheart.loading.blame import run_error
from openheart.loading.inputs import Inputs, read_inputs, read_tensor, warn_of_odd_numbers
from openheart.loading.models import load_model, load_weights
from openheart.loading.training import Loss, OptimizerFactory, find_loss, find_optimizer, wants_classes
from openheart.loading.trouble import bad_input
from openheart.patients import patient, patients
from openheart.record import recording

if TYPE_CHECKING:
    from openheart.recording import Recording

__all__ = ["Run", "Subject", "is_patient", "open_subject", "patient_subject", "steps_for"]

SEED = 28
"""What random draws start from, unless `--seed` says otherwise: two runs give the same numbers."""


@dataclass(frozen=True, slots=True)
class Run:
    """A recording, the network as it stands after it, and sentences about what was noticed on the way."""

    recording: Recording
    model: torch.nn.Module
    inputs: Inputs
    steps: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that a run needs; `build()` gives a fresh network every time."""

    name: str
    build: Callable[[], torch.nn.Module]
    inputs: Inputs
    target: torch.Tensor | None = None
    loss: Loss | None = None
    needs_target: bool = True
    optimizer: OptimizerFactory | None = None
    story: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    seed: int = SEED
    mode: str | None = None  # "train" or "eval"; None: eval for a forward pass, train for a training step
    fixed_dtype: bool = False  # the inputs have the type that was asked for

    @property
    def can_train(self) -> bool:
        """Whether a loss can be computed, and so gradients."""
        return self.loss is not None and (self.target is not None or not self.needs_target)

    def run(self, steps: int = 0) -> Run:
        """Records a forward pass (`steps` 0) or that many training steps, from a fresh network.

        Whole-number inputs are given as floating-point numbers, the network's own type; if the network
        refuses them, as an embedding does, they are given as they are.

        **Raises** `InputError` when the network raises, and when something for a training step is missing.
        """
        if steps and not self.can_train:
            raise bad_input("no_loss" if self.loss is None else "no_target")
        if steps > 1 and self.optimizer is None:
            raise bad_input("no_optimizer", steps=steps)
        if not self.inputs.whole or self.fixed_dtype:
            return self._record(steps, as_ids=False)
        try:
            return self._record(steps, as_ids=False)
        except InputError as error:  # it is raised again unless whole numbers help
            try:
                return self._record(steps, as_ids=True)
            except InputError as other:
                raise (other if _is_about_kinds(error) and not _is_about_kinds(other) else error) from None

    def _record(self, steps: int, as_ids: bool) -> Run:
        model = self.build()
        with contextlib.suppress(
            NotImplementedError
        ):  # an exported program keeps the mode it was exported in
            model.train(self.mode == "train" if self.mode else steps > 0)
        dtype = _dtype_of(model)
        inputs = self.inputs if self.fixed_dtype else self.inputs.each(lambda t: _fitted(t, dtype, as_ids))
        inputs = _pictures(inputs, model)
        target = None if self.target is None else self._target(dtype)
        optimizer = self.optimizer(model.parameters()) if steps and self.optimizer is not None else None
        with random_numbers(self.seed), contextlib.redirect_stdout(sys.stderr):
            try:
                with recording(model) as rec:
                    if steps:
                        for _ in range(steps):
                            self._step(model, inputs, target, optimizer)
                    else:
                        model(*inputs.args, **inputs.kwargs)
            except (Exception, SystemExit) as error:
                raise run_error(error, model, inputs, target) from error
        return Run(rec, model, inputs, steps, tuple(warn_of_odd_numbers(inputs)))

    def _step(self, model: torch.nn.Module, inputs: Inputs, target: Any, optimizer: Any) -> None:
        assert self.loss is not None
        (optimizer or model).zero_grad()
        output = output_tensor(model(*inputs.args, **inputs.kwargs))
        loss = self.loss(output, target)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise bad_input("loss_not_scalar", shape=getattr(loss, "shape", type(loss).__name__))
        loss.backward()
        if optimizer is not None:
            optimizer.step()

    def _target(self, dtype: torch.dtype) -> torch.Tensor:
        assert self.target is not None
        if self.target.is_floating_point() or wants_classes(self.loss) or self.story:
            return self.target  # a patient's target is as its loss wants it
        return self.target.to(dtype)


def _is_about_kinds(error: InputError) -> bool:
    """Whether a network refused what kind of numbers it was given, and not the numbers."""
    cause = error.__cause__
    return cause is not None and _KINDS.search(str(cause)) is not None


_KINDS = re.compile(
    r"(?i)scalar type|\bdtypes?\b|data type|(float|double|long|int|bool)tensor|must be of type|as indices"
)


def output_tensor(output: Any) -> torch.Tensor:
    """The tensor of a network's output that a loss is for: itself, `logits`, or the first one inside.

    **Raises** `InputError` when there is none.
    """
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        items = [output[key] for key in ("logits", "out") if key in output] + list(output.values())
    else:
        items = (
            list(output)
            if isinstance(output, (list, tuple))
            else list(getattr(output, "__dict__", {}).values())
        )
    for item in items:
        if isinstance(item, torch.Tensor) and item.is_floating_point():
            return item
    raise bad_input("output_not_tensor", found=type(output).__name__)


def _dtype_of(model: torch.nn.Module) -> torch.dtype:
    """The floating-point type that a network computes in: its first parameter's, or its first buffer's."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            return tensor.dtype
    return torch.float32


def _fitted(tensor: torch.Tensor, dtype: torch.dtype, as_ids: bool) -> torch.Tensor:
    if tensor.is_complex():
        return tensor
    if tensor.is_floating_point():
        return tensor.to(dtype)
    return tensor if as_ids else tensor.to(dtype)


def _pictures(inputs: Inputs, model: torch.nn.Module) -> Inputs:
    """Gives pictures the form that the first layer takes: gray or colour for a convolution, else a row."""
    if not inputs.images:
        return inputs
    first = next((m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))), None)
    args = list(inputs.args)
    for n in inputs.images:
        picture = args[n]
        if isinstance(first, torch.nn.Conv2d) and first.in_channels != picture.shape[1]:
            if first.in_channels == 1:  # the luma of ITU-R BT.601, as Pillow has it
                weights = picture.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
                picture = (picture * weights).sum(1, keepdim=True)
            elif first.in_channels == 3:
                picture = picture.repeat(1, 3, 1, 1)
        elif isinstance(first, torch.nn.Linear) and first.in_features == picture.numel():
            picture = picture.flatten(1)
        args[n] = picture
    return Inputs(tuple(args), inputs.kwargs, inputs.images)


@contextlib.contextmanager
def random_numbers(seed: int) -> Iterator[None]:
    """Draws start from `seed` inside; outside, the random state is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


# Which steps an address needs ----------------------------------------------------------------------

_STEP = re.compile(r"^@(\d+)\s")
_TRAINED = re.compile(r"\.grad(\b|$)|\.after(\b|$)|^loss\b|^optimizer/|(^|/)backward/")


def steps_for(address: str) -> int:
    """How many training steps an address needs: 0 for one of a forward pass.

    >>> steps_for("0.out[0,1]"), steps_for("0.weight.grad[0,1]"), steps_for("@2 loss")
    (0, 1, 3)
    """
    step = _STEP.match(address.strip())
    if step is not None:
        return int(step.group(1)) + 1
    return 1 if _TRAINED.search(address.strip()) else 0


# Subjects from names -------------------------------------------------------------------------------


def is_patient(name: str) -> bool:
    """Whether a built-in patient has this name."""
    return any(each.name == name for each in patients())


def patient_subject(name: str) -> Subject:
    """A built-in patient with its own data, target, loss and optimizer.

    **Raises** `PatientError` for a name that no patient has.
    """
    chosen = patient(name)
    return Subject(
        name=name,
        build=chosen.build,
        inputs=Inputs(chosen.inputs()),
        target=chosen.target(),
        loss=chosen.loss(),
        optimizer=chosen.optimizer,
        story=chosen.story,
        labels=chosen.labels,
        fixed_dtype=True,
    )


def open_subject(
    model: str,
    inputs: tuple[str, ...] = (),
    *,
    target: str | None = None,
    loss: str | None = None,
    optimizer: str | None = None,
    weights: str | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    mode: str | None = None,
    trust: bool = False,
) -> Subject:
    """A subject from what a command line says; a patient's own data, loss and optimizer fill in the rest.

    **Raises** `PatientError` or `InputError`, each with what is wrong and what to do.
    """
    begin = SEED if seed is None else seed
    built_in = patient_subject(model) if is_patient(model) else None
    if built_in is None and looks_like_a_name(model):
        from openheart.loading.trouble import bad_model, did_you_mean

        names = [each.name for each in patients()]
        raise bad_model(
            "unknown_patient", name=model, near=did_you_mean(model, names), known=", ".join(names)
        )
    first = None if built_in else load_model_seeded(model, begin, trust)
    ready = [] if first is None else [first]

    def build() -> torch.nn.Module:
        if built_in is not None:
            network = built_in.build()
        else:
            network = ready.pop() if ready else load_model_seeded(model, begin, trust)
        if weights is not None:
            load_weights(network, Path(weights).expanduser(), trust)
        return network

    if not inputs and built_in is None:
        from openheart.loading.blame import wanted_input

        assert first is not None
        raise bad_input("no_input", wanted=wanted_input(first))
    read = read_inputs(inputs, dtype, trust) if inputs else built_in.inputs if built_in else Inputs()
    chosen, needs_target = (
        find_loss(loss) if loss is not None else (built_in.loss if built_in else None, True)
    )
    own_target = built_in.target if built_in is not None and not inputs else None
    return Subject(
        name=model,
        build=build,
        inputs=read,
        target=read_tensor(target, trust) if target is not None else own_target,
        loss=chosen,
        needs_target=needs_target,
        optimizer=find_optimizer(optimizer)
        if optimizer is not None
        else built_in.optimizer
        if built_in
        else None,
        story=built_in.story if built_in is not None and loss is None and target is None else {},
        labels=built_in.labels if built_in is not None else (),
        seed=begin,
        mode=mode,
        fixed_dtype=dtype is not None or (built_in is not None and not inputs),
    )


def load_model_seeded(model: str, seed: int, trust: bool) -> torch.nn.Module:
    """A network whose random initial weights are the same in every run."""
    with random_numbers(seed):
        return load_model(model, trust)


def looks_like_a_name(model: str) -> bool:
    """Whether a word that is no patient can only have been meant as one: no file, no suffix, no colon.

    >>> looks_like_a_name("sed"), looks_like_a_name("net.py:build")
    (True, False)
    """
    return not any(mark in model for mark in (":", "/", "\\", ".")) and not Path(model).exists()
