"""Help, completion and the words of the command line: in both languages, and at once."""

import sys
import time
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from openheart.cli.app import build
from openheart.cli.completion import PATIENTS
from openheart.i18n import catalogue, set_language
from openheart.loading.training import find_loss, find_optimizer
from openheart.patients import patients

COMMANDS = ("demo", "patients", "explain", "verify", "show", "completion")


@pytest.fixture(autouse=True)
def _own_language():
    yield
    set_language(None)


@pytest.mark.parametrize(("lang", "words"), [("es", ("Uso:", "Ejemplos")), ("en", ("Usage:", "Examples"))])
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_speaks(call, lang, words, command) -> None:
    answer = call(*command, "--help", "--lang", lang)
    assert answer.code == 0
    assert answer.err == ""
    for word in words:
        assert word in answer.out
    other = {"es": ("Usage", "Options", "Show this", "default:"), "en": ("Uso", "Opciones")}[lang]
    for word in other:
        assert word not in answer.out


def test_help_by_click_runner() -> None:
    set_language("en")
    result = CliRunner().invoke(build(), ["explain", "--help"])
    assert result.exit_code == 0
    assert "MODEL" in result.output
    assert '"0.weight.grad[2,1]"' in result.output


def test_help_follows_the_machine(process) -> None:
    assert "Uso:" in process("--help", LC_ALL="es_CO.UTF-8").out
    assert "Usage:" in process("--help", LC_ALL="C").out


def test_no_command_is_help(call) -> None:
    answer = call("--lang", "en")
    assert answer.code == 0
    assert "Usage: openheart" in answer.out


def test_help_needs_no_torch() -> None:
    import subprocess

    code = (
        "import sys; from openheart.cli import run; run(['explain', '--help']); "
        "print([m for m in ('torch', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert time.monotonic() - began < 2


def test_version(call) -> None:
    assert call("--version").out.startswith("openheart 0.")


def test_completed_patients_are_the_patients() -> None:
    assert tuple(each.name for each in patients()) == PATIENTS


@pytest.mark.parametrize(
    ("words", "begun", "expected"),
    [
        (["explain"], "seed-s", ["seed-sigmoid", "seed-softmax"]),
        (["verify"], "tiny", ["tiny-gpt"]),
        (["explain", "net.py:build", "--loss"], "cross", ["cross-entropy"]),
        (["explain", "net.py:build", "--optimizer"], "adamw", ["adamw,lr=0.001"]),
        ([], "ver", ["verify"]),
        (["explain", "seed", "--format"], "la", ["latex"]),
    ],
)
def test_completion(words, begun, expected) -> None:
    found = BashComplete(build(), {}, "openheart", "_OPENHEART_COMPLETE").get_completions(words, begun)
    assert [item.value for item in found] == expected


def test_files_complete_where_no_patient_does() -> None:
    found = BashComplete(build(), {}, "openheart", "_OPENHEART_COMPLETE").get_completions(["explain"], "net")
    assert [item.type for item in found] == ["file"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(call, shell) -> None:
    answer = call("completion", shell)
    assert answer.code == 0
    assert "_OPENHEART_COMPLETE" in answer.out


def test_offered_losses_and_optimizers_exist() -> None:
    context = click.Context(build())
    from openheart.cli.completion import complete_loss, complete_optimizer

    parameter = click.Option(["--x"])
    for item in complete_loss(context, parameter, ""):
        find_loss(item.value)
    for item in complete_optimizer(context, parameter, ""):
        find_optimizer(item.value)


def test_every_sentence_is_in_both_languages() -> None:
    """And every key that the code asks for by name is in the catalogue."""
    ours = [{k for k in catalogue(lang) if k.startswith(("cli.", "demo.", "show."))} for lang in ("es", "en")]
    assert ours[0] == ours[1]
    for key in ours[0]:
        es, en = (str(catalogue(lang)[key]) for lang in ("es", "en"))
        assert sorted(_fields(es)) == sorted(_fields(en)), key


def _fields(sentence: str) -> set[str]:
    import string

    return {
        name
        for _, name, _, _ in string.Formatter().parse(sentence.replace("{'", "").replace("'}", ""))
        if name
    }


def test_no_path_of_this_machine_in_the_package() -> None:
    import openheart.cli

    for file in Path(openheart.cli.__file__).parent.glob("*.py"):
        assert "/work/" not in file.read_text(encoding="utf-8")


def test_terminal_gets_signs_of_life_on_stderr_only(tmp_path) -> None:
    """On a terminal a slow step shows that it is alive; the answer on stdout stays clean."""
    import os
    import pty
    import subprocess

    (tmp_path / "slow.py").write_text(
        "import time\nfrom torch import nn\n\n"
        "def build():\n    time.sleep(1.5)\n    print('x')\n    return nn.Linear(2, 1)\n",
        encoding="utf-8",
    )
    ours, theirs = pty.openpty()
    start = "from openheart.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, "explain", "slow.py", "output[0,0]", "-i", "[[1, 2]]", "--lang", "en"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=tmp_path,
        text=True,
        encoding="utf-8",
        check=True,
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.stdout.startswith("output[0,0] = ") or done.stdout.startswith(".out[0,0] = ")
    assert "\x1b" not in done.stdout
    assert "opening slow.py" in said
