"""The lines that a training writes for the terminal: when, with which numbers, and that no reader can stop it."""

import fcntl
import os

import pytest

from blurdiff.config.settings import settings_from
from blurdiff.training import telling


@pytest.fixture
def told(settings, monkeypatch):
    """A function that tells a Teller (every 10 seconds, batches of 4) of (time, iteration, loss), into a pipe."""
    reader, writer = os.pipe()
    settings["training"]["iterations"] = 1200
    teller = telling.Teller(settings_from(settings), 10, writer)

    def tell(*events):
        for now, iteration, loss in events:
            monkeypatch.setattr(telling.time, "monotonic", lambda now=now: now)
            teller(iteration, loss)

    yield tell, reader, writer
    os.close(writer)


def test_at_most_one_line_in_so_many_seconds(told):
    tell, reader, writer = told
    tell(
        (0, 501, None),
        (9.9, 600, None),
        (10, 601, None),
        (19, 700, 0.25),
        (30, 1001, 0.1251),
        (31, 1002, 0.1),
        (50, 1200, 0.1),
    )
    os.set_blocking(reader, False)
    assert os.read(reader, 9999).decode().splitlines() == [
        "tiny seed 3: 601 of 1200 iterations, 40 images/s, 60 s left",
        "tiny seed 3: 1001 of 1200 iterations, loss 0.125, 80 images/s, 9.9 s left",
        "tiny seed 3: 1200 of 1200 iterations, loss 0.100, 40 images/s, 0 s left",
    ]
    os.close(reader)


def test_a_reader_that_is_slow_or_gone_stops_nothing(told):
    tell, reader, writer = told
    room = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    os.write(writer, b"." * (room - 10))
    tell((0, 1, None), (10, 2, None))  # a write would wait for ever
    assert len(os.read(reader, 2 * room)) == room - 10
    os.close(reader)
    tell((20, 3, None))
