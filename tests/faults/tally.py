"""The tally of the fault suite: what was injected, and how much of it was survived with identical results.

A pytest plugin: a test that takes the fixture `faults` records each fault that it injects, and passes only when every
one of them was survived and its results were compared with those of an undisturbed run. The records are properties of
the tests' reports, so that they also reach the process that prints them when pytest-xdist runs the tests in others.
"""

from collections import Counter
from collections.abc import Callable

import pytest

INJECTED, IDENTICAL = "fault injected", "fault survived with identical results"


class Faults:
    """The faults that one test injects."""

    def __init__(self, record: Callable[[str, str], None]):
        self.record, self.n_injected, self.unsettled = record, 0, []

    def inject(self, kind: str) -> None:
        """A fault of this kind is about to happen."""
        self.record(INJECTED, kind)
        self.n_injected += 1
        self.unsettled.append(kind)

    def settle(self) -> None:
        """After the faults injected so far, what was run ended well, with the results of an undisturbed run."""
        for kind in self.unsettled:
            self.record(IDENTICAL, kind)
        self.unsettled = []


@pytest.fixture
def faults(record_property) -> Faults:
    """Where a test records the faults that it injects; it fails when one of them is not settled at its end."""
    return Faults(record_property)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    recorder = getattr(item, "funcargs", {}).get("faults")
    if isinstance(recorder, Faults):
        assert recorder.n_injected, "the test injected no fault"
        assert not recorder.unsettled, f"not survived, or not compared: {', '.join(recorder.unsettled)}"
    return result


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    counts = Counter(tuple(each) for report in reports for each in report.user_properties)
    if kinds := sorted({kind for name, kind in counts if name == INJECTED}):
        terminalreporter.section("faults")
        width = max(map(len, kinds))
        terminalreporter.write_line(f"{'':<{width}}  injected  results identical")
        rows = [(kind, counts[INJECTED, kind], counts[IDENTICAL, kind]) for kind in kinds]
        for kind, injected, identical in [*rows, ("all", *(sum(row[k] for row in rows) for k in (1, 2)))]:
            terminalreporter.write_line(f"{kind:<{width}}  {injected:>8}  {identical:>17}")
