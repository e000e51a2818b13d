"""Inputs, tables, losses and optimizers from words and files; exported programs, looked at before loading."""

import json
import zipfile

import numpy as np
import pytest
import torch

from openheart.errors import InputError, PatientError
from openheart.loading import read_inputs
from openheart.loading.exported import _plain_expression, load_exported, what_needs_trust
from openheart.loading.subject import steps_for
from openheart.loading.table import read_table
from openheart.loading.training import find_loss, find_optimizer


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("a,b\n1,2.5\n", [[1, 2.5]]),
        ("1;2,5\n3;4\n", [[1, 2.5], [3, 4]]),
        ("ancho;alto\n1.234,5;2\n", [[1234.5, 2]]),
        ("1\t2\n\n3\t4\n", [[1, 2], [3, 4]]),
        ("1 2\n3 4", [[1, 2], [3, 4]]),
        ("\ufeffx\n7\n", [[7]]),
        ('"1,5","2"\n', [[1.5, 2]]),
        ("−1,2\n", [[-1, 2]]),
        ("1e-3,nan\n", [[0.001, float("nan")]]),
    ],
)
def test_tables(tmp_path, text, rows) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    np.testing.assert_equal(read_table(path), rows)


@pytest.mark.parametrize("text", ["", "a,b\n", "1,2\n3\n", "1,2\n3,x\n", "1,,2\n"])
def test_bad_tables(tmp_path, text) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"t\.csv"):
        read_table(path)


def test_json_inputs() -> None:
    assert read_inputs(["[[1, 2]]"]).args[0].dtype == torch.int64
    assert read_inputs(["[[1, 2.5]]"]).args[0].dtype == torch.float32
    assert read_inputs(["3.5"]).args[0].shape == ()
    assert read_inputs(["[[true, false]]"]).args[0].dtype == torch.bool
    both = read_inputs(["[1, 2]", '{"mask": [0, 1]}'])
    assert [name for name, _ in both.items()] == ["input", "mask"]
    assert read_inputs(["[1, 2]"], dtype="float64").args[0].dtype == torch.float64


def test_files(tmp_path) -> None:
    from safetensors.torch import save_file

    np.save(tmp_path / "a.npy", np.arange(6, dtype=">f4").reshape(2, 3))
    np.savez(tmp_path / "b.npz", np.ones(2), np.zeros(3))
    np.savez(tmp_path / "c.npz", ids=np.ones(2, dtype=np.int32), mask=np.zeros(2))
    save_file({"x": torch.ones(2, 2)}, tmp_path / "d.safetensors")
    (tmp_path / "e.json").write_text("[[1, 2]]", encoding="utf-8")
    assert read_inputs([str(tmp_path / "a.npy")]).args[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [t.shape[0] for t in read_inputs([str(tmp_path / "b.npz")]).args] == [2, 3]
    assert set(read_inputs([str(tmp_path / "c.npz")]).kwargs) == {"ids", "mask"}
    assert read_inputs([str(tmp_path / "d.safetensors")]).args[0].shape == (2, 2)
    assert read_inputs([str(tmp_path / "e.json")]).args[0].shape == (1, 2)


@pytest.mark.parametrize("name", ["cut.npy", "cut.safetensors", "cut.npz", "words.json", "cut.png"])
def test_damaged_files(tmp_path, name) -> None:
    (tmp_path / name).write_bytes(
        b"\x93NUMPY\x01\x00v\x00{'descr'" if name.endswith("npy") else b"nothing of the kind"
    )
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read_inputs([str(tmp_path / name)])


@pytest.mark.parametrize(
    "name",
    [
        "mse",
        "MSELoss",
        "mse_loss",
        "cross-entropy",
        "ce",
        "CrossEntropyLoss",
        "bce-with-logits",
        "l1",
        "kl-div",
    ],
)
def test_losses(name) -> None:
    loss, needs_target = find_loss(name)
    assert callable(loss)
    assert needs_target


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("sgd,lr=0.1,momentum=0.9", {"lr": 0.1, "momentum": 0.9}),
        ("SGD lr=0.1", {"lr": 0.1}),
        ("adamw:lr=1e-3,betas=(0.9, 0.95),weight_decay=0.1", {"betas": (0.9, 0.95), "weight_decay": 0.1}),
        ("rmsprop,centered=true", {"centered": True}),
        ("adam", {}),
    ],
)
def test_optimizers(text, settings) -> None:
    made = find_optimizer(text)([torch.nn.Parameter(torch.ones(1))])
    assert settings.items() <= made.defaults.items()


@pytest.mark.parametrize(
    ("address", "steps"),
    [
        ("0.out[0]", 0),
        ("loss", 1),
        ("0.weight.grad[1,2]", 1),
        ("@4 loss", 5),
        ("grad.out[0]", 0),
        ("0.weight.after[0]", 1),
    ],
)
def test_steps_for(address, steps) -> None:
    assert steps_for(address) == steps


# Exported programs ------------------------------------------------------------------------------------------


class Odd(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            twice = x * 2
        return {"a": torch.softmax(self.linear(x) + self.shift + twice[:, :3], -1), "b": x.reshape(-1)}


@pytest.fixture
def program(tmp_path):
    batch = torch.export.Dim("batch", min=2, max=100)
    exported = torch.export.export(Odd(), (torch.ones(5, 4),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(exported, tmp_path / "odd.pt2")
    return tmp_path / "odd.pt2"


def rewritten(path, change):
    """The archive with its program's JSON changed."""
    other = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            raw = source.read(name)
            if "/models/" in name:
                raw = json.dumps(change(json.loads(raw))).encode()
            target.writestr(name, raw)
    return other


def test_plain_program_needs_no_trust(program) -> None:
    assert what_needs_trust(program) is None
    assert set(load_exported(program)(torch.ones(3, 4))) == {"a", "b"}


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p | {"guards_code": ["__import__('os').system('true')"]},
        lambda p: p | {"guards_code": ["open('x')"]},
        lambda p: _first_target(p, "torch.os.system"),
        lambda p: _first_target(p, "torch.ops.load_library"),
        lambda p: _first_target(p, "_operator.attrgetter"),
        lambda p: _first_target(p, "torch.ops.aten.__class__"),
        lambda p: json.loads(json.dumps(p).replace("Mul(Integer(4)", "Mul(exec('1')")),
        lambda p: json.loads(json.dumps(p).replace("builtins.tuple", "torch.Size")),
    ],
)
def test_anything_more_needs_trust(program, change) -> None:
    with pytest.raises(PatientError, match="--trust"):
        load_exported(rewritten(program, change))


def _first_target(program, target):
    program["graph_module"]["graph"]["nodes"][0]["target"] = target
    return program


def test_pickled_parts_need_trust(program, tmp_path) -> None:
    other = tmp_path / "pickled.pt2"
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            raw = source.read(name)
            if name.endswith("weights_config.json"):
                raw = raw.replace(b'"use_pickle": false', b'"use_pickle": true')
            target.writestr(name, raw)
    with pytest.raises(PatientError, match="--trust"):
        load_exported(other)


def test_not_a_program(tmp_path) -> None:
    (tmp_path / "x.pt2").write_bytes(b"nothing")
    with zipfile.ZipFile(tmp_path / "y.pt2", "w") as archive:
        archive.writestr("readme", "hello")
    for name in ("x.pt2", "y.pt2"):
        with pytest.raises(PatientError, match=name.replace(".", r"\.")):
            load_exported(tmp_path / name)


@pytest.mark.parametrize("code", ["4*s77", "Mod(s0 + 1, 2)", "Mul(Integer(4), Symbol('s7', positive=True))"])
def test_sizes(code) -> None:
    assert _plain_expression(code)


@pytest.mark.parametrize("code", ["().__class__", "eval('1')", "lambda: 1", "[x for x in s0]", "f(", "'a b'"])
def test_not_sizes(code) -> None:
    assert not _plain_expression(code)


def test_onnx(tmp_path, monkeypatch) -> None:
    """Converted where onnx2torch is installed; else the sentence says what to install."""
    from openheart.loading import load_model

    path = tmp_path / "net.onnx"
    try:
        import onnx2torch  # noqa: F401
    except (ImportError, RuntimeError):
        path.write_bytes(b"")
        with pytest.raises(PatientError, match=r"openheart\[onnx\]"):
            load_model(str(path))
        return
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(72, 3)
    ).eval()
    x = torch.ones(1, 1, 8, 8)
    torch.onnx.export(model, (x,), path)
    torch.testing.assert_close(load_model(str(path))(x), model(x))
