"""One writer for every file: whole or not at all, a link stays a link, a device a device."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import openheart as oh
from openheart.cli import run
from openheart.errors import OpenheartError
from openheart.live import to_javascript
from openheart.recording import Recording
from openheart.surgery import write_edits
from openheart.writing import DRAFT, replacing, write_text

Write = Callable[[Recording, Path], object]
WRITERS: dict[str, Write] = {
    "save": lambda rec, path: rec.save(path),
    "to_html": lambda rec, path: rec.to_html(path),
    "to_javascript": lambda rec, path: to_javascript(rec, path),
    "to_javascript, separate": lambda rec, path: to_javascript(rec, path, separate=True),
    "write_edits": lambda _, path: write_edits({"weight": 0.0}, path),
    "-o": lambda _, path: _command("explain", "seed", "loss", "-o", path),
    "--format json -o": lambda _, path: _command("verify", "seed", "--format", "json", "-o", path),
    "show -o": lambda _, path: _command("show", "seed", "-o", path),
    "export -o": lambda _, path: _command("export", "seed", "-o", path),
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def _command(*arguments: str | Path) -> None:
    if run([str(a) for a in arguments]) != 0:
        raise OSError("the command line said no")


@pytest.fixture(scope="module")
def rec() -> Recording:
    torch.manual_seed(0)
    return oh.record(nn.Linear(3, 2), torch.randn(4, 3))


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@every_writer
@pytest.mark.usefixtures("umask")
def test_a_new_file_has_the_mode_that_any_programs_would_have(
    write: Write, rec: Recording, tmp_path: Path
) -> None:
    path = tmp_path / "made"
    write(rec, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@every_writer
def test_a_file_keeps_its_mode_and_a_link_stays_a_link(write: Write, rec: Recording, tmp_path: Path) -> None:
    real, link = tmp_path / "far" / "real", tmp_path / "link"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o604)
    link.symlink_to("far/real")
    write(rec, link)
    assert link.is_symlink()
    assert real.read_bytes() != b"old"
    assert stat.S_IMODE(real.stat().st_mode) == 0o604
    assert _left(real.parent) == ["real"]


@every_writer
def test_a_link_to_nothing_makes_what_it_points_to(write: Write, rec: Recording, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    write(rec, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").is_file()


@every_writer
def test_on_a_full_disk_the_old_file_stays(write: Write, rec: Recording, tmp_path: Path) -> None:
    path = tmp_path / "made"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises((OSError, OpenheartError)):
            write(rec, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert _left(tmp_path) == ["made"]


@every_writer
def test_a_device_is_written_into_and_never_replaced(write: Write, rec: Recording, tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises((OSError, OpenheartError)):
        write(rec, tmp_path / "full")
    write(rec, tmp_path / "null")
    for name in ("/dev/full", "/dev/null"):
        assert stat.S_ISCHR(os.stat(name).st_mode)


@every_writer
def test_a_fifo_is_written_into(write: Write, rec: Recording, tmp_path: Path) -> None:
    plain, fifo = tmp_path / "plain", tmp_path / "fifo"
    write(rec, plain)
    os.mkfifo(fifo)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    write(rec, fifo)
    reader.join(10)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert found == [plain.read_bytes()]


KILLED = """
import sys, time
from openheart.writing import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("now", flush=True)
    time.sleep(60)
"""


def test_the_draft_of_a_killed_writer_goes_with_the_next_one_and_that_of_a_living_one_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "made"
    path.write_text("old")
    writers = []
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"now\n"
        writers.append(writer)
    dead, alive = writers
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert path.read_text() == "old"
    assert len(_left(tmp_path)) == 3
    write_text(tmp_path / "another", "new")
    assert len(_left(tmp_path)) == 3
    alive.send_signal(signal.SIGKILL)
    alive.wait()
    write_text(path, "new")
    assert _left(tmp_path) == ["another", "made"]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()


def test_the_longest_name_that_a_folder_takes(tmp_path: Path) -> None:
    path = tmp_path / ("ñ" * 127)
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_somebody_elses_file_and_a_foreign_draft_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"fifo{DRAFT}").symlink_to(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo")
    write_text(tmp_path / "made", "whole")
    assert (tmp_path / "fifo").exists()
    if os.geteuid() == 0:
        return  # root may write everywhere
    (tmp_path / "kept").write_text("old")
    (tmp_path / "kept").chmod(0o400)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "kept", "new")
    assert (tmp_path / "kept").read_text() == "old"


def test_what_is_open_already_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with path.open("wb") as file, replacing(f"/proc/self/fd/{file.fileno()}") as other:
        other.write(b"through the stream")
    assert path.read_text() == "through the stream"


def test_a_folder_a_missing_one_and_a_circle_of_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for path in (tmp_path, tmp_path / "none" / "made", tmp_path / "one"):
        with pytest.raises(OSError):
            write_text(path, "x")


def test_numbers_are_not_written_over_their_program(rec: Recording, tmp_path: Path) -> None:
    with pytest.raises(oh.InputError, match=r"program\.bin"):
        to_javascript(rec, tmp_path / "program.bin", separate=True)
    assert _left(tmp_path) == []
