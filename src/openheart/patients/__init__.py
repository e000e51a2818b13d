"""The patients: built-in networks with their data, loss, optimizer and story; offline and deterministic."""

from openheart.errors import PatientError
from openheart.i18n import Message
from openheart.nearest import nearest
from openheart.patients import byhand, digits, gpt, lstm, tables, tutorial
from openheart.patients.anatomy import Patient

__all__ = ["Patient", "patient", "patients"]

_ALL = (
    *byhand.PATIENTS,
    *tutorial.PATIENTS,
    *tables.PATIENTS,
    *digits.PATIENTS,
    *gpt.PATIENTS,
    *lstm.PATIENTS,
)
_BY_NAME = {each.name: each for each in _ALL}


def patients() -> tuple[Patient, ...]:
    """All patients, the simplest first.

    >>> [each.name for each in patients()][:3]
    ['hand', 'seed', 'seed-batch']
    """
    return _ALL


def patient(name: str) -> Patient:
    """The patient of that name.

    >>> patient("iris").labels
    ('setosa', 'versicolor', 'virginica')

    Raises `PatientError` for a name that is none of them, with the nearest one that is.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = nearest(name, _BY_NAME)
    hint = "" if near is None else Message("error.hint", {"name": near})
    raise PatientError("error.patient", name=name, hint=hint, known=", ".join(_BY_NAME))
