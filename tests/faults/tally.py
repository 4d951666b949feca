"""The tally of the fault suite: what was injected, what was survived, and whose results were identical.

A pytest plugin: a test that takes the fixture `faults` records each fault that it injects, and passes only when every
one of them was survived and its results were compared with those of an undisturbed run. The counts travel in the
tests' reports, so that they also reach the process that prints them when pytest-xdist runs the tests in others.
"""

from collections import Counter

import pytest

PROPERTY = "fault"
DEFAULT_KILLS = 10


class Faults:
    """The faults that one test injects."""

    def __init__(self):
        self.injected, self.survived, self.identical = Counter(), Counter(), Counter()

    def inject(self, kind: str) -> None:
        """A fault of this kind is about to happen."""
        self.injected[kind] += 1

    def settle(self) -> None:
        """After the faults injected so far, what was run ended well, with the results of an undisturbed run."""
        self.end_well()
        self.identical = self.injected.copy()

    def end_well(self) -> None:
        """After the faults injected so far, what was run ended well; whether with the right results is still open."""
        self.survived = self.injected.copy()

    def unsettled(self) -> list[str]:
        """The kinds of which a fault was not survived, or whose results were never found to be identical."""
        return [kind for kind, n in self.injected.items() if min(self.survived[kind], self.identical[kind]) < n]


@pytest.fixture
def faults() -> Faults:
    """Where a test records the faults that it injects; it fails when one of them is not settled at its end."""
    return Faults()


def pytest_addoption(parser):
    parser.addoption(
        "--kills",
        type=int,
        help=f"processes that the fault suite kills at random moments, in rounds of 10 (default {DEFAULT_KILLS})",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    recorder = getattr(item, "funcargs", {}).get("faults")
    try:
        result = yield
        if isinstance(recorder, Faults):
            assert recorder.injected, "the test injected no fault"
            assert not recorder.unsettled(), f"not survived, or not compared: {', '.join(recorder.unsettled())}"
        return result
    finally:
        for kind, n in recorder.injected.items() if isinstance(recorder, Faults) else ():
            item.user_properties.append((PROPERTY, (kind, n, recorder.survived[kind], recorder.identical[kind])))


def pytest_terminal_summary(terminalreporter):
    rows = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == PROPERTY:
                kind, *counts = value
                rows[kind] = [a + b for a, b in zip(rows.get(kind, (0, 0, 0)), counts, strict=True)]
    if rows:
        terminalreporter.section("faults")
        for line in table(rows):
            terminalreporter.write_line(line)


def table(rows: dict[str, list[int]]) -> list[str]:
    """The lines of the tally: a row a kind, and their sum."""
    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    width = max(map(len, [*rows, "all"]))
    lines = [f"{'':<{width}}  injected  survived  results identical"]
    for kind, (injected, survived, identical) in [*sorted(rows.items()), ("all", total)]:
        lines.append(f"{kind:<{width}}  {injected:>8}  {survived:>8}  {identical:>17}")
    return lines
