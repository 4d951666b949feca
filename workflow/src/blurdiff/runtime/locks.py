"""Locks that the system frees when the process that holds them ends, however it ends."""

import fcntl
import os
import socket
import sys
import time
from pathlib import Path
from typing import TextIO


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
        print(f"{busy} by {holder}; waiting for it to end", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    return False


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
