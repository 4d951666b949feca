"""How runs are called, and the settings that are refused."""

import json

import pytest

from blurdiff.config.runs import complete_settings
from blurdiff.config.settings import with_keys
from blurdiff.diffusion.families import build_process
from blurdiff.diffusion.timesteps import step_grid
from blurdiff.errors import UserError
from blurdiff.evaluation.evaluate import describe_run
from blurdiff.reporting import labels
from blurdiff.reporting.style import looks


def test_schedules_and_directions_in_words(settings):
    runs = [
        settings(f_type="none", f_N=0.0),
        settings(f_type="log", f_N=0.6),
        settings(),
        settings(direction="fine-to-coarse"),
        settings(mode_order="released") | {"run": "bedroom_quartic_released"},
        settings(f_type="linear", f_N=1, basis="dct", direction="reversed"),
    ]
    assert labels.run_labels(runs) == [
        "no blur",
        "log, f(N) = 0.6",
        "quartic, f(N) = 0.1406, coarse-to-fine",
        "quartic, f(N) = 0.1406, fine-to-coarse",
        "quartic, f(N) = 0.1406, coarse-to-fine, released mode order",
        "linear, f(N) = 1, reversed D, DCT basis",
    ]


def test_seeds_and_other_differences_are_told_only_where_there_are_any(settings):
    assert labels.run_labels([settings(), settings(seed=1)]) == [
        "quartic, f(N) = 0.1406, seed 0",
        "quartic, f(N) = 0.1406, seed 1",
    ]
    assert labels.run_labels([settings(), settings(seed=1)], with_seed=False) == ["quartic, f(N) = 0.1406"] * 2
    assert labels.run_labels([settings(), settings("church", sigma=0.8)]) == [
        "quartic, f(N) = 0.1406, sigma = 0.4",
        "quartic, f(N) = 0.1406, sigma = 0.8",
    ]


def test_synthetic_data_is_always_called_so(settings):
    run = settings()
    assert labels.data_label(run) == "bedroom (synthetic)"
    assert labels.data_label({**run, "label": "rooms"}) == "rooms (synthetic)"
    assert labels.data_label({**run, "label": "LSUN bedroom", "synthetic": False}) == "LSUN bedroom"
    assert "not photographs" in labels.data_note([run])
    assert "not photographs" not in labels.data_note([{**run, "synthetic": False}])


def test_colours_and_dashes_follow_the_schedule_and_never_repeat(settings):
    usual, unusual = settings(), settings(direction="fine-to-coarse")
    others = [settings(f_type=f_type, f_N=0.5) for f_type in ("linear", "cubic", "none")]
    runs = [unusual, usual, *others]
    names = labels.run_labels(runs)
    look = looks(runs, names)
    assert look[names[1]] == looks([usual], ["alone"])["alone"]  # as in a figure of its own
    assert len({colour for colour, _ in look.values()}) == len({dash for _, dash in look.values()}) == len(runs)


def test_settings_are_read_inline_or_from_a_file(settings, tmp_path):
    runs = [settings(), settings("church")]
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(runs))
    expected = [complete_settings(run) for run in runs]
    assert labels.read_runs([json.dumps(runs)]) == labels.read_runs([str(path)]) == expected


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda run: run.pop("dataset"), "dataset"),
        (lambda run: run["process"].update(f_typ="log"), "process.f_typ"),
        (lambda run: run["process"].update(f_N=-1), "process.f_N"),
        (lambda run: run.update(training=3), "training"),
        (lambda run: run.update(resolution=16), "resolution"),
    ],
)
def test_incomplete_or_mixed_settings_are_refused(settings, change, word):
    runs = [settings(), settings("church")]
    change(runs[1])
    with pytest.raises(UserError, match=word):
        labels.read_runs([json.dumps(runs)])


@pytest.mark.parametrize("text", ["[]", "{}", "[1]", '[{"run": ', "absent.json"])
def test_what_is_no_list_of_settings_is_refused(text):
    with pytest.raises(UserError):
        labels.read_runs([text])


def test_what_most_runs_share_is_not_told(settings):
    runs = [settings(), settings(f_type="none", f_N=0.0), settings(f_type="log", f_N=0.6, sigma=0.8)]
    assert labels.run_labels(runs) == ["quartic, f(N) = 0.1406", "no blur", "log, f(N) = 0.6, sigma = 0.8"]


@pytest.mark.parametrize("skip", [False, True])
def test_the_number_of_steps_is_that_of_the_sampler(settings, skip):
    """Unless the settings say fewer, a sampler takes all timesteps that the network saw: the grid of sample.py."""
    run = complete_settings(settings(skip_last_timestep=skip) | {"sampling": {"n_samples": 40}})
    process = build_process(run.process, 8)
    assert labels.n_steps(run) == len(step_grid(process, start=20 - skip)) - 1
    assert f"{20 - skip} reverse diffusion steps of N = 20" in labels.sampling_note([run])
    assert describe_run(run)["n_steps"] == 20 - skip
    fewer = with_keys(run, "sampling", n_steps=5)
    assert labels.n_steps(fewer) == describe_run(fewer)["n_steps"] == 5


def test_tilt_and_shift_are_told_by_their_symbols(settings):
    given = [(0.0, 0.0), (-2.0, 0.0), (0.5, 2.7726)]
    runs = [settings(f_type="none", f_N=0.0, snr_tilt=p, snr_shift=delta) for p, delta in given]
    words = ["no blur, tilt p = 0", "no blur, tilt p = −2", "no blur, δ = 2.773, tilt p = 0.5"]
    assert labels.run_labels(runs, with_seed=False) == words


def test_runs_that_differ_in_training_or_sampling_alone_are_told_apart(settings):
    """But seeds of a run are not."""
    runs = [settings(seed=0), settings(seed=1), settings() | {"run": "long"}]
    label = "quartic, f(N) = 0.1406"
    own = [f"{label}, run {run['run']}" for run in runs]
    assert labels.run_labels(runs, with_seed=False) == own
    assert labels.run_labels(runs[:2], with_seed=False) == [label] * 2
    assert labels.run_labels([runs[0], settings("church")]) == [label] * 2  # of another data set


def test_a_key_that_a_run_does_not_use_is_not_told(settings):
    runs = [settings(f_type="none", f_N=0.0, snr_tilt=p) for p in (None, -1.0, None, 0.0)]
    assert labels.run_labels(runs, with_seed=False)[1:] == ["no blur, tilt p = −1", "no blur", "no blur, tilt p = 0"]
