"""Ending on a signal with the work saved: what a batch system sends before its limit, Snakemake, or Ctrl-C."""

import signal
import threading

EXIT_INTERRUPTED = 75  # "temporary failure": the work is saved, the same command goes on with it


class StopSignals:
    """While entered, SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) only set `received`: a step can end first."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self):
        self.received: str | None = None

    def __enter__(self) -> "StopSignals":
        in_main_thread = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers
        self.previous = {number: signal.signal(number, self._note) for number in self.SIGNALS if in_main_thread}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.received = signal.Signals(number).name
