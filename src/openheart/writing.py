"""Files are written whole or not at all: beside their place first, then moved there.

Every writer of the project goes through here. A kill or a full disk at any moment leaves the old file or the
new one. A link stays a link, and what it points to is written; a file keeps its mode, and a new one has the
mode that any program's would have. What is no file (a device, a FIFO) is written into, never replaced.
A draft that a killed writer left behind is removed by the next one that writes into its folder.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

_locks: Any = None
with contextlib.suppress(
    ImportError
):  # not a Unix: there a file that is being written cannot be removed anyway
    _locks = importlib.import_module("fcntl")

__all__ = ["DRAFT", "open_file", "replacing", "utf8", "write_files", "write_text"]

DRAFT = ".openheart-draft"
"""How the name of a file ends that is not in its place yet."""
_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text as UTF-8.

    **Raises** `OSError` where it cannot be written; the old file is then as it was.
    """
    write_files({Path(path): utf8(text)})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Writes files that belong together: none takes its place before all of them are on the disk.

    **Raises** `OSError` where one cannot be written; the old files are then as they were.
    """
    with contextlib.ExitStack() as places:
        for path, content in contents.items():
            file = places.enter_context(replacing(path))
            file.write(content)
            _settle(file)


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, to be read: a FIFO would be waited for, and a device never ends.

    **Raises** `OSError` where it is not there, or is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        wrong = errno.EISDIR if stat.S_ISDIR(mode) else errno.ESPIPE
        raise OSError(
            wrong, os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "not a regular file", str(path)
        )
    return os.fdopen(handle, "rb")


def utf8(text: str) -> bytes:
    """A text as UTF-8; half a surrogate pair, which UTF-8 does not have, as the escape that Python writes."""
    return text.encode("utf-8", "backslashreplace")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, from its beginning to its end, that takes the place of `path` when the block ends.

    If the block or the disk fails, `path` is as it was. A device or a FIFO is opened itself: what is written
    has then been written. Nothing may seek in the file, since a FIFO cannot.

    **Raises** `OSError` where the folder is missing, or the file may not be written.
    """
    old = _found(path)
    if (old is not None and not stat.S_ISREG(old.st_mode)) or _is_stream(path):
        with open(path, "wb") as device:
            yield device
        return
    if old is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    target = Path(os.path.realpath(path))
    _sweep(target.parent)
    draft, file = _begin(target)
    try:
        with file:
            if old is not None:
                _be_like(draft, old)
            yield file
            _settle(file)
            if _locks is None:
                file.close()  # Windows moves no open file; elsewhere the lock is held until it has its place
            os.replace(draft, target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    _settle_folder(target.parent)


def _found(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path names what is open already: to replace the file behind it would lose the rest of it."""
    return os.path.abspath(path).startswith(("/dev/fd/", "/dev/std", "/proc/"))


def _be_like(draft: Path, old: os.stat_result) -> None:
    """Gives a draft the owner (where that is ours to give) and the mode of the file that it replaces."""
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(draft, old.st_uid, old.st_gid)
    os.chmod(draft, stat.S_IMODE(old.st_mode))


def _begin(target: Path) -> tuple[Path, BinaryIO]:
    """A new draft, locked: whoever finds it locked knows that somebody is still writing."""
    while True:
        # The name is cut where it would be too long for the folder; it only tells a person what this is.
        name = os.fsdecode(os.fsencode(target.name)[:120])
        draft = target.with_name(f".{name}.{secrets.token_hex(6)}{DRAFT}")
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        file = os.fdopen(handle, "wb")
        _lock(handle)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(draft), os.fstat(handle)):
                return draft, file
        file.close()  # another writer swept it away between its creation and its lock


def _lock(handle: int) -> bool:
    """Whether nobody else holds this file, and we do now."""
    if _locks is None:
        return True
    try:
        _locks.flock(handle, _locks.LOCK_EX | _locks.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Removes the drafts of writers that are no more."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.path for entry in entries if entry.name.endswith(DRAFT)]:
            with contextlib.suppress(OSError):
                handle = os.open(name, os.O_RDONLY | _CAREFULLY)
                try:
                    if _lock(handle):
                        os.unlink(name)
                finally:
                    os.close(handle)


def _settle(file: BinaryIO) -> None:
    """Sees to it that what was written is on the disk; a FIFO has none."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise


def _settle_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder, and need not
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
