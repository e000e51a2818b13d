"""From words on a command line to a run: networks, inputs, losses and optimizers, each from a name or a file.

>>> from openheart.loading import patient_subject
>>> subject = patient_subject("hand")
>>> subject.run().recording.output.item()
8.0
"""

from openheart.loading.inputs import Inputs, read_inputs
from openheart.loading.models import load_model, load_weights
from openheart.loading.subject import Run, Subject, is_patient, open_subject, patient_subject

__all__ = [
    "Inputs",
    "Run",
    "Subject",
    "is_patient",
    "load_model",
    "load_weights",
    "open_subject",
    "patient_subject",
    "read_inputs",
]
