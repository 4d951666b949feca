"""Locks that the system frees when the process that holds them ends, however it ends."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from blurdiff.errors import UserError
from blurdiff.runtime.text import say


def wait_for_lock(file: TextIO, busy: str) -> bool:
    """Lock an open file (mode "a+") for this process alone; returns whether another one had it.

    While another process has it, this one says who and waits; `busy` begins that line ("PATH is being trained").
    OSError when the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        say(f"{busy} by {holder}; waiting for it to end")
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    return False


@contextlib.contextmanager
def waited_for(path: Path, busy: str, use: str) -> Iterator[bool]:
    """Hold the lock file `path`, made with its folder if need be; gives whether another process had it before.

    While another process has it, this one says who and waits, as in `wait_for_lock`. Where the file system has no
    locks, a warning says so, and that nothing else may `use` it meanwhile. UserError when it cannot be written.
    """
    waited = False
    try:
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (open for as long as the lock)
            except FileNotFoundError:
                continue  # the one that had it was about to remove the folder
            try:
                waited |= wait_for_lock(file, busy)
            except OSError as error:
                say(f"warning: {path} cannot be locked ({error.strerror}); see that nothing else {use}")
            if same_file(file, path):
                break
            file.close()  # whoever had it has removed it
        sign_lock(file)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    with file:
        yield waited


def sign_lock(file: TextIO) -> None:
    """Write into a lock that this process holds who that is."""
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()


def same_file(file: TextIO, path: Path) -> bool:
    """Whether `path` is still the open file: a lock on a file that was deleted or replaced keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def lock_holder(folder: Path) -> str | None:
    """Who holds the folder's lock ("process 12 on host since …"), None when nobody does.

    The lock is tried for a moment only, and shared, so that two who look do not see one another.
    """
    try:
        file = open(folder / "lock", encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "another process"
        except OSError:  # a file system without locks, on which nothing is trained
            return None
    return None


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock without waiting for it; gives False when somebody else has it, or the folder is gone.

    UserError when the file system has no locks: nobody knows then who uses the folder.
    """
    try:
        file = open(folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            raise UserError(f"cannot lock {file.name}: {error.strerror}; {folder} may be in use, and stays") from error
        sign_lock(file)
        yield same_file(file, folder / "lock")
