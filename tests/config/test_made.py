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


def test_a_study_carries_what_was_tried(tmp_path):
    path, lines = tmp_path / "samplers.csv", ["sampler,grid,eta,noise_free_steps,n_steps,n_samples"]
    lines += [f"{name},{eta},2,{n},3" for name, eta in (("ddim,uniform", 0.0), ("ddim,snr", 0.5)) for n in (2, 4)]
    path.write_text("\n".join(lines) + "\n")
    usual = {"sampler": "ddim", "noise_free_steps": 2}
    samplers = [usual | {"grid": "uniform", "eta": 0}, usual | {"grid": "snr", "eta": 0.5}]
    assert made.settings_in(path) == made.studied(samplers, [2, 4], 3)
    with pytest.raises(UserError, match=r"samplers.csv was made with sampler_study.n_steps \[2, 4\], .* \[2, 5\]"):
        made.compare(path, made.settings_in(path), made.studied(samplers, [2, 5], 3))


@pytest.mark.parametrize("name", made.CARRIERS)
@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b"\xff" * 9])
def test_what_is_none_of_these_files_carries_nothing(tmp_path, name, content):
    assert made.settings_in(tmp_path / name) == {}
    (tmp_path / name).write_bytes(content)
    assert made.settings_in(tmp_path / name) == {}
