import lmdb
import pytest


@pytest.fixture
def write_lmdb(tmp_path):
    """A function that writes an LMDB of the records given, one transaction each dictionary; returns its folder."""

    def write(*transactions, name="some_lmdb"):
        folder = tmp_path / name
        with lmdb.open(str(folder), map_size=1 << 26, lock=False) as environment:
            for records in transactions:
                with environment.begin(write=True) as transaction:
                    for key, value in records.items():
                        transaction.put(key, value)
        return folder

    return write
