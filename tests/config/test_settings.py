"""What is committed is what settings.py says; every fingerprint is pinned."""

import dataclasses

import pytest

from blurdiff.config import keys, reference
from blurdiff.config.runs import complete_settings
from blurdiff.config.settings import ProcessConfig, TrainingConfig, settings_from, with_keys
from blurdiff.store import store

SHORT = {"run": "short", "dataset": "rooms", "seed": 0, "resolution": 16, "training": {"iterations": 3}}
# What the store calls these models. A change here orphans trained models, weeks of GPU: raise store.FORMAT if they are
# to be trained anew, or give the key whose default has changed a `baseline` if they are not.
GOLDEN = {
    "the defaults": ({}, "1447e06fbcb86f7e"),
    "quartic": ({"process": {"f_type": "quartic", "f_N": 0.140625}}, "7e6480337673e12b"),
    "a small network": (
        {
            "process": {"n_timesteps": 200, "beta_1": 0.0005, "beta_N": 0.1, "f_type": "log", "f_N": 0.6},
            "network": {"channels": 16, "multipliers": [1, 2], "n_res_blocks": 1, "attention_resolutions": []},
            "training": {"iterations": 800, "batch_size": 32, "learning_rate": 0.002, "ema_decay": 0.99},
        },
        "a8777ba075c0fa7f",
    ),
}


def fingerprint(settings):
    return store.fingerprint(store.fingerprinted(settings, "f" * 64))


@pytest.mark.parametrize("case", GOLDEN)
def test_fingerprints_stay(case):
    given, expected = GOLDEN[case]
    assert fingerprint(complete_settings({**SHORT, **given})) == expected


@dataclasses.dataclass(frozen=True)
class Extended(TrainingConfig):
    """A later version's section, with a key more."""

    clipping: float = keys.key(1.0, keys.number(), "")


@dataclasses.dataclass(frozen=True)
class Changed(ProcessConfig):
    """A later version's section, with another default for N, and the old one as the baseline."""

    n_timesteps: int = keys.key(500, keys.integer(2), "N", baseline=1000)


def test_a_key_added_with_its_default_orphans_nothing():
    now = complete_settings(SHORT)
    later = dataclasses.replace(now, training=Extended(**now.training))
    assert fingerprint(later) == fingerprint(now)
    assert fingerprint(with_keys(later, "training", clipping=2.0)) != fingerprint(now)


def test_a_changed_default_is_another_model():
    old = complete_settings(SHORT)
    assert fingerprint(dataclasses.replace(old, process=Changed(**old.process))) == fingerprint(old)
    new = dataclasses.replace(old, process=Changed())
    assert fingerprint(new) != fingerprint(old)
    assert store.fingerprinted(new, "f" * 64)["process"] == {"n_timesteps": 500}


def test_how_a_model_is_trained_makes_no_other_model():
    settings = complete_settings(SHORT)
    values = {"micro_batch_size": 2, "checkpoint_every": 7, "log_every": 7, "compile": True, "data_on_device": True,
              "device": "cuda", "gpus": 2, "nodes": 2, "threads": 4}  # fmt: skip
    assert set(values) == {field.name for field in dataclasses.fields(TrainingConfig) if field.metadata["how"]}
    for key, value in values.items():
        assert fingerprint(with_keys(settings, "training", **{key: value})) == fingerprint(settings)


def test_settings_survive_json():
    settings = complete_settings(SHORT)
    assert settings_from(settings.as_dict()) == settings


def test_the_schema_is_the_one_of_settings_py():
    made = reference.schema_text()
    assert reference.SCHEMA.read_text(encoding="utf-8") == made, "python -m blurdiff.config.reference"


def test_the_tables_are_those_of_settings_py():
    text = reference.README.read_text(encoding="utf-8")
    assert text.count("<!-- begin generated: ") == len(reference.TABLES) + 1
    assert reference.with_tables(text) == text, "python -m blurdiff.config.reference"


def test_every_key_has_a_meaning_or_a_name_that_says_it():
    silent = [f"{name}.{field.name}" for name, section in reference.TABLES.items()
              for field in dataclasses.fields(section) if not field.metadata["text"]]  # fmt: skip
    assert {name.rpartition(".")[2] for name in silent} <= {"device", "dropout"}
