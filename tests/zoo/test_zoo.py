"""A whole training step of the field's networks: every number checked, none opaque."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from tests.zoo.architectures import ARCHITECTURES, train_step


@pytest.mark.zoo
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_number_of_a_training_step_is_checked(name: str) -> None:
    audit = train_step(name).verify()
    assert audit.disagree == 0, audit.disagreements[:5]
    assert audit.opaque == 0, audit.opaque_operators
    assert audit.scalars > 50_000
