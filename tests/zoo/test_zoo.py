"""A whole training step of the field's networks: every number checked, none opaque."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from tests.zoo.architectures import ARCHITECTURES, train_step

WITHOUT_A_LAW = {"mixtral": ("aten._grouped_mm", "aten.histc")}
"""Operators of these networks that no law of the rulebook explains."""


@pytest.mark.zoo
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_number_of_a_training_step_is_checked(name: str) -> None:
    audit = train_step(name).verify()
    assert audit.disagree == 0, audit.disagreements[:5]
    assert audit.opaque_operators == WITHOUT_A_LAW.get(name, ())
    assert bool(audit.opaque) is (name in WITHOUT_A_LAW)
    assert audit.scalars > 50_000
