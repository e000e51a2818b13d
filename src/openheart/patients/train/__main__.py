"""Train patients and write their weights: `python -m openheart.patients.train NAME … | all`.

Every run on one kind of processor gives the same weights: the seeds are the patients' own, and one thread
does the sums.
The table in `patients/README.md` is written anew from the weights that ship.
"""

import argparse
import time

import torch
from rich.progress import Progress
from safetensors.torch import save

from openheart.patients import patient, patients
from openheart.patients.anatomy import HERE, Patient
from openheart.patients.train.fit import Recipe, fit, measure
from openheart.writing import write_files, write_text

RECIPES = {
    "xor": Recipe(epochs=600, batch=4),
    "iris": Recipe(epochs=60, batch=16),
    "digits-mlp": Recipe(epochs=40, batch=32, decay=0.95),
    "digits-cnn": Recipe(epochs=20, batch=32, decay=0.85),
    "tiny-gpt": Recipe(epochs=20, batch=32, decay=0.85),
    "lstm": Recipe(epochs=300, batch=16, decay=0.995),
}

MARK = "<!-- measured -->"


def train(who: Patient) -> None:
    """Train one patient and write its weights."""
    recipe, began = RECIPES[who.name], time.perf_counter()
    with Progress(transient=True) as progress:
        bar = progress.add_task(who.name, total=recipe.epochs)

        def report(epoch: int, loss: float) -> None:
            progress.update(bar, completed=epoch, description=f"{who.name}  loss {loss:.4f}")

        model = fit(who, recipe, report)
    content = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    write_files({who.weights: content})
    print(f"{row(who)}  {time.perf_counter() - began:.1f} s")


def row(who: Patient) -> str:
    """One line of the table: parameters, loss and accuracy on both splits."""
    model = who.build(training=False)
    trained, tested = measure(who, model, "train"), measure(who, model, "test")
    count = sum(parameter.numel() for parameter in model.parameters())
    cells = [f"`{who.name}`", f"{count:,}", f"{trained.loss:.2f}", f"{tested.loss:.2f}"]
    cells += ["–" if each.accuracy is None else f"{each.accuracy:.1%}" for each in (trained, tested)]
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """The whole table, in Markdown."""
    head = "| patient | parameters | loss, training | loss, test | accuracy, training | accuracy, test |"
    return "\n".join([head, "|---|--:|--:|--:|--:|--:|", *(row(each) for each in patients() if each.trained)])


def write_table() -> None:
    """Put the table between the two marks of the README."""
    page = HERE / "README.md"
    before, _, after = page.read_text(encoding="utf-8").split(MARK)
    write_text(page, f"{before}{MARK}\n{table()}\n{MARK}{after}")


def main() -> None:
    """Read the command line, train, write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m openheart.patients.train", description="Train the patients again."
    )
    parser.add_argument(
        "names", nargs="*", choices=[*RECIPES, "all", []], metavar="NAME", help=", ".join([*RECIPES, "all"])
    )
    asked = parser.parse_args().names
    torch.set_num_threads(1)
    for name in RECIPES if "all" in asked else asked:
        train(patient(name))
    write_table()


if __name__ == "__main__":
    main()
