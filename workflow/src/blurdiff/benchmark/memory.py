"""How much memory a process takes, or a process and those that it starts."""

import contextlib
import math
import re
import sys
import threading
from pathlib import Path


def peak_rss() -> int:
    """The most memory (bytes) that this process has had. VmHWM where there is one: it starts at 0 with the program,
    while getrusage also remembers what the process was before that, a copy of its parent."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available() -> float:
    """Bytes that can still be taken: of the machine, or of a container's or batch job's limit; infinite if unknown."""
    found = [math.inf]
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        for folder in [Path("/sys/fs/cgroup") / path.lstrip("/") for _, name, path in groups if not name]:
            for each in (folder, *folder.parents):  # of all limits on the way up the least counts
                with contextlib.suppress(OSError, ValueError):  # no limit is the word "max"
                    limit, used = (int((each / f"memory.{name}").read_text()) for name in ("max", "current"))
                    cached = re.search(r"^inactive_file (\d+)", (each / "memory.stat").read_text(), re.M)
                    found.append(limit - used + int(cached[1] if cached else 0))
    return min(found)


class TreeMemory(threading.Thread):
    """While entered, watches the memory of a process and its children; `peak` is the largest sum of their PSS, in
    which a page that several share counts once. 0 where the system does not tell (it is Linux that does)."""

    def __init__(self, pid: int | None):
        super().__init__(daemon=True)
        self.pid, self.peak, self.stop = pid, 0, threading.Event()

    def __enter__(self) -> "TreeMemory":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop.set()
        self.join()
        self.peak = max(self.peak, tree_memory(self.pid))

    def run(self) -> None:
        while not self.stop.wait(0.2):
            self.peak = max(self.peak, tree_memory(self.pid))


def tree_memory(pid: int | None) -> int:
    """The sum of the PSS (bytes) of a process and all its children; 0 where /proc does not tell."""
    total = 0
    with contextlib.suppress(OSError, ValueError):  # a process may end while it is looked at
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(map(tree_memory, map(int, (task / "children").read_text().split())))
    return total
