import pytest

import pictures
from blurdiff.data import preprocess as stage


@pytest.fixture
def write_lmdb(tmp_path):
    """pictures.write_lmdb into a folder of this name."""
    return lambda *transactions, name="some_lmdb": pictures.write_lmdb(tmp_path / name, *transactions)


@pytest.fixture
def in_process(monkeypatch):
    """Preprocess without worker processes, which take longer to start than all the rest of a test."""
    open_reader, opened = stage.open_reader, []

    def open_once(kind, path):
        opened.append(open_reader(kind, path))
        return opened[-1]

    def without_workers(function, tasks, workers):
        yield from map(function, tasks)

    monkeypatch.setattr(stage, "open_reader", open_once)
    monkeypatch.setattr(stage, "_reader", lambda kind, path: opened[-1])
    monkeypatch.setattr(stage, "ordered_map", without_workers)
