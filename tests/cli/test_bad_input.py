"""Bad input: one clear sentence on stderr in the reader's language, exit code 2, never a traceback."""

import json

import numpy as np
import pytest
import torch

# (command line, what the sentence must name in any language)
BAD = {
    "unknown address": (["explain", "seed", "2.out[0,0]"], ["2.out[0,0]", "(1, 1)"]),
    "misspelt address": (["explain", "seed", "0.outt[0,1]"], ["0.out[0,1]", "(1, 3)"]),
    "index out of range": (["explain", "seed", "0.out[0,7]"], ["`0.out[0,2]`", "(1, 3)"]),
    "too few indices": (["explain", "seed", "0.out[1]"], ["0.out[0,0]", "(1, 3)"]),
    "a whole tensor": (["explain", "seed", "0.out"], ["0.out[0,0]", "(1, 3)"]),
    "no index": (["explain", "seed", "0.out[a,b]"], ["0.out[a,b]"]),
    "unknown patient": (["explain", "sed", "loss"], ["sed", '"seed"|«seed»']),
    "missing model": (["explain", "nett.py:build", "fc1.out[0,0]"], ["nett.py", "net.py"]),
    "missing input": (["explain", "net.py:Net", "fc1.out[0,0]", "--input", "y.npy"], ["y.npy", "x.npy"]),
    "no input": (["explain", "net.py:Net", "fc1.out[0,0]"], ["--input", "(…, 3)"]),
    "wrong shape": (
        ["explain", "net.py:Net", "fc1.out[0,0]", "--input", "wide.npy"],
        ["(1, 9)", "`fc1`", "(…, 3)"],
    ),
    "empty batch": (["explain", "net.py:Net", "fc1.out[0,0]", "--input", "empty.npy"], ["(0, 3)"]),
    "no such factory": (["explain", "net.py:biuld", "x", "--input", "x.npy"], ["biuld", "build"]),
    "which factory": (["explain", "net.py", "x", "--input", "x.npy"], ["net.py:Net", "net.py:build"]),
    "factory with arguments": (["explain", "net.py:needs", "x", "--input", "x.npy"], ["width"]),
    "factory raises": (
        ["explain", "net.py:broken", "x", "--input", "x.npy"],
        ["the disk is on fire", "net.py:45"],
    ),
    "factory gives a number": (["explain", "net.py:number", "x", "--input", "x.npy"], ["int", "nn.Module"]),
    "file raises": (
        ["explain", "fails.py:build", "x", "--input", "x.npy"],
        ["ZeroDivisionError", "fails.py:3"],
    ),
    "syntax error": (["explain", "typo.py:build", "x", "--input", "x.npy"], ["SyntaxError", "typo.py:3"]),
    "no such module": (["explain", "no_such_package.x:build", "x"], ["no_such_package"]),
    "forward raises": (["explain", "net.py:Raises", "x", "--input", "x.npy"], ["no_such_method", "net.py:"]),
    "model is a pickle": (["explain", "whole.pt", "x", "--input", "x.npy"], ["whole.pt", "--trust"]),
    "model is weights": (["explain", "weights.pt", "x", "--input", "x.npy"], ["--weights"]),
    "model is a folder": (["explain", ".", "x"], ["net.py:build"]),
    "input is a pickle": (["explain", "net.py:Net", "x", "--input", "tensor.pt"], ["tensor.pt", "--trust"]),
    "input of objects": (
        ["explain", "net.py:Net", "x", "--input", "objects.npy"],
        ["objects.npy", "--trust"],
    ),
    "weights are a pickle": (
        ["explain", "only.py", "x", "--input", "x.npy", "--weights", "whole.pt"],
        ["whole.pt", "--trust"],
    ),
    "weights of another network": (
        ["explain", "net.py:Net", "x", "--input", "x.npy", "--weights", "weights.pt"],
        ["fc1.weight", "weight"],
    ),
    "bad JSON": (["explain", "net.py:Net", "x", "--input", "[[1, 2,"], ["JSON"]),
    "words in JSON": (["explain", "net.py:Net", "x", "--input", '[["a"]]'], ["'a'"]),
    "ragged JSON": (["explain", "net.py:Net", "x", "--input", "[[1, 2], [3]]"], ["(1,)", "(2,)"]),
    "unknown kind of input": (["explain", "net.py:Net", "x", "--input", "net.py"], ["net.py", ".npy"]),
    "unknown loss": (
        ["explain", "net.py:Net", "loss", "--input", "x.npy", "--loss", "msee", "--target", "x.npy"],
        ["msee", '"mse"|«mse»'],
    ),
    "no loss": (["explain", "net.py:Net", "fc1.weight.grad[0,0]", "--input", "x.npy"], ["--loss"]),
    "no target": (["explain", "net.py:Net", "loss", "--input", "x.npy", "--loss", "mse"], ["--target"]),
    "no optimizer": (
        ["explain", "net.py:Net", "fc1.weight.after[0,0]", "--input", "x.npy", "--loss", "sum"],
        ["--optimizer"],
    ),
    "steps without optimizer": (
        ["explain", "net.py:Net", "loss", "--input", "x.npy", "--loss", "sum", "--steps", "3"],
        ["--optimizer"],
    ),
    "unknown optimizer": (
        ["explain", "net.py:Net", "loss", "--input", "x.npy", "--loss", "sum", "--optimizer", "adamm"],
        ["adamm", '"adam"|«adam»'],
    ),
    "unknown setting": (
        [
            "explain",
            "net.py:Net",
            "loss",
            "--input",
            "x.npy",
            "--loss",
            "sum",
            "--optimizer",
            "sgd,momentun=1",
        ],
        ["momentum"],
    ),
    "refused setting": (
        ["explain", "net.py:Net", "loss", "--input", "x.npy", "--loss", "sum", "--optimizer", "sgd,lr=-1"],
        ["sgd,lr=-1"],
    ),
    "garbled setting": (
        ["explain", "net.py:Net", "loss", "--input", "x.npy", "--loss", "sum", "--optimizer", "sgd,fast"],
        ["fast", "lr=0.1"],
    ),
    "target of another shape": (
        ["explain", "net.py:Net", "loss", "--input", "x.npy", "--loss", "cross-entropy", "--target", "[1]"],
        ["target (1,)"],
    ),
    "output is text": (
        ["explain", "net.py:Text", "loss", "--input", "x.npy", "--loss", "sum"],
        ["str"],
    ),
    "unknown option": (["explain", "seed", "loss", "--dept", "2"], ["--dept", "--depth"]),
    "unknown command": (["explian"], ["explian", "explain"]),
    "no model": (["explain"], ["MODEL|RED"]),
    "too many arguments": (["verify", "seed", "loss"], ["loss"]),
    "digits out of range": (["explain", "seed", "loss", "--digits", "99"], ["99", "17"]),
    "unknown format": (["explain", "seed", "loss", "--format", "pdf"], ["pdf", "latex"]),
    "steps not a number": (["verify", "seed", "--steps", "two"], ["two"]),
    "unwritable output": (["show", "seed", "-o", "no/such/folder/page.html"], ["page.html"]),
}


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("case", BAD)
def test_one_clear_sentence(call, home, case, lang) -> None:
    arguments, named = BAD[case]
    answer = call(*arguments, "--lang", lang)
    assert answer.code == 2, answer.out + answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert answer.err.startswith("openheart: error: ")
    assert len(answer.err.strip().splitlines()) <= 2  # the sentence, and for wrong usage where the help is
    for word in named:
        assert any(choice in answer.err for choice in word.split("|")), (word, answer.err)


@pytest.mark.parametrize("case", ["index out of range", "factory raises", "model is a pickle"])
def test_in_a_process(process, home, case) -> None:
    arguments, named = BAD[case]
    answer = process(*arguments, "--lang", "en", cwd=home)
    assert answer.code == 2
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert named[0] in answer.err


def test_debug_shows_the_traceback(process, home) -> None:
    answer = process("explain", "net.py:broken", "x", "--input", "x.npy", "--debug", cwd=home)
    assert answer.code != 0
    assert "Traceback" in answer.err
    assert "the disk is on fire" in answer.err


def test_unknown_language(call) -> None:
    answer = call("patients", "--lang", "fr")
    assert answer.code == 2
    assert "fr" in answer.err
    assert "Traceback" not in answer.err


def test_a_reader_that_leaves(process, home) -> None:
    """`openheart … | head -1` ends quietly."""
    import subprocess
    import sys

    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from openheart.cli import main; main()",
            "explain",
            "tiny-gpt",
            "--format",
            "json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    assert "Traceback" not in writer.stderr.read()
    writer.stderr.close()
    assert writer.wait() == 0


def test_pickle_never_runs(call, home) -> None:
    """A pickle that would leave a file behind leaves none, by whatever name it comes."""
    import pickle

    class Trap:
        def __reduce__(self):
            return (open, (str(home / "sprung"), "w"))

    raw = pickle.dumps(Trap())
    for name in ("trap.pkl", "trap.pt", "trap.npy", "trap.bin", "trap", "trap.pt2", "trap.csv"):
        (home / name).write_bytes(raw)
        assert call("explain", "only.py", "output[0,0]", "--input", name).code == 2
        assert call("explain", name, "output[0,0]", "--input", "x.npy").code == 2
        assert call("explain", "only.py", "weight[0,0]", "--input", "x.npy", "--weights", name).code == 2
    torch.save(Trap(), home / "zip.pt")
    np.savez(home / "trap.npz", a=np.array([Trap()], dtype=object))
    for name in ("zip.pt", "trap.npz"):
        assert call("explain", "only.py", "output[0,0]", "--input", name).code == 2
        assert call("explain", name, "output[0,0]", "--input", "x.npy").code == 2
    assert not (home / "sprung").exists()


def test_json_stays_json_when_the_file_talks(call, home) -> None:
    answer = call("explain", "net.py:build", "fc2.out[0,0]", "--input", "x.npy", "--format", "json")
    json.loads(answer.out)
