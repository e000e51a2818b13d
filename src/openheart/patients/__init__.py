"""The patients: built-in networks with their data, loss, optimizer and story; offline and deterministic."""

from openheart.errors import PatientError
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
    from difflib import get_close_matches

    near = get_close_matches(name, _BY_NAME, n=1, cutoff=0.4)
    hint = f'did you mean "{near[0]}"?' if near else "one of these?"
    raise PatientError("error.patient", name=name, hint=hint, known=", ".join(_BY_NAME))
