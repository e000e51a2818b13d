"""Make data/iris.npz and data/digits.npz from scikit-learn's copies.

Run it with `python -m openheart.patients.train.extract`. It needs
scikit-learn, which the development set-up has and the product does not ask for.
"""

import numpy
from sklearn.datasets import load_digits, load_iris

from openheart.patients.anatomy import DATA


def main() -> None:
    """Write both files, the same bytes every time."""
    iris = load_iris()
    numpy.savez_compressed(
        DATA / "iris.npz",
        millimetres=numpy.rint(iris.data * 10).astype(numpy.uint8),  # measured to a tenth of a centimetre
        species=iris.target.astype(numpy.uint8),
    )
    digits = load_digits()
    numpy.savez_compressed(
        DATA / "digits.npz",
        pixels=digits.data.astype(numpy.uint8),  # 0 to 16: how many of a 4×4 block's pixels were inked
        digits=digits.target.astype(numpy.uint8),
    )


if __name__ == "__main__":
    main()
