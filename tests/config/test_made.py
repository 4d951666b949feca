"""Files carry the settings that decide them, and are compared with those of the config."""

import json

import pytest

from blurdiff.config import made
from blurdiff.config.runs import complete_settings
from blurdiff.errors import UserError
from tiny import as_dict


def changed(section, key, value):
    settings = as_dict()
    (settings[section] if section else settings)[key] = value
    return complete_settings(settings)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [(None, "seed", 4), ("process", "n_timesteps", 30), ("training", "iterations", 7), ("sampling", "grid", "snr")],
)
def test_another_setting_names_file_key_and_both_values(section, key, value):
    carried = json.loads(json.dumps(made.deciding(complete_settings(as_dict()), *made.SAMPLES)))
    settings, name = changed(section, key, value), f"{section}.{key}" if section else key
    with pytest.raises(UserError, match=f"^x.npz was made with {name} {carried[name]}, .* {value}; .*delete"):
        made.check_made("x.npz", carried, settings, made.SAMPLES)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("training", "threads", 4), ("sampling", "n_samples", 7), (None, "label", "x"), ("evaluation", "batch_size", 2)],
)
def test_what_decides_nothing_and_what_is_unknown_is_not_compared(section, key, value):
    carried = made.deciding(complete_settings(as_dict()), *made.SAMPLES)
    made.check_made("x.npz", carried, changed(section, key, value), made.SAMPLES)
    made.check_made("x.npz", {"process.key_of_another_version": 1}, changed(section, key, value), made.SAMPLES)


def test_tables_count_by_their_content(tmp_path):
    table = tmp_path / "f.csv"
    table.write_text("i,f\n0,0\n")
    settings = changed("process", "f_table", str(table))
    carried = made.deciding(settings, "process")
    table.write_text("i,f\n0,1\n")
    with pytest.raises(UserError, match="f_table"):
        made.check_made("x.npz", carried, settings, ("process",))
