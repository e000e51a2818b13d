"""The data that ship are those that scikit-learn ships."""

import numpy
from sklearn.datasets import load_digits, load_iris

from openheart.patients.anatomy import load_arrays


def test_iris() -> None:
    ours, theirs = load_arrays("iris"), load_iris()
    numpy.testing.assert_allclose(ours["millimetres"] / 10, theirs.data)
    numpy.testing.assert_array_equal(ours["species"], theirs.target)


def test_digits() -> None:
    ours, theirs = load_arrays("digits"), load_digits()
    numpy.testing.assert_array_equal(ours["pixels"], theirs.data)
    numpy.testing.assert_array_equal(ours["digits"], theirs.target)
