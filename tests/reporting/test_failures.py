"""What breaks: saturation and fine detail from images made by hand, and a row for each sampler with the most steps."""

import numpy as np
import pandas as pd
import pytest

from blurdiff.config.runs import complete_settings
from blurdiff.config.settings import with_keys
from blurdiff.errors import UserError
from blurdiff.evaluation.records import STUDY_COLUMNS
from blurdiff.evaluation.spectrum import radial_power_spectrum
from blurdiff.reporting import failures


def test_saturated_images():
    rng = np.random.default_rng(0)
    photo = rng.integers(1, 255, (10, 10, 3), dtype=np.uint8)
    red = np.broadcast_to(np.array([255, 0, 0], np.uint8), photo.shape)
    nearly, not_quite = photo.copy(), photo.copy()
    nearly.reshape(-1, 3)[:91] = 255
    not_quite.reshape(-1, 3)[:90] = 0
    assert failures.saturated(np.stack([photo, red, nearly, not_quite])) == 0.5


def test_power_at_the_finest_octave():
    """A wave in it of twice the amplitude has four times the power; one below it counts for nothing."""
    wave = np.cos(2 * np.pi * np.arange(16) * 6 / 16)  # 3/8 cycles a pixel
    slow = np.cos(2 * np.pi * np.arange(16) * 2 / 16)
    images = [np.rint(128 + a * wave[:, None] + b * slow[None, :] + np.zeros((16, 16))) for a, b in ((50, 0), (25, 60))]
    strong, weak = (np.repeat(image[None, :, :, None], 3, 3).astype(np.uint8) for image in images)
    power = [failures.finest_octave(radial_power_spectrum(each)) for each in (strong, weak)]
    assert power[0] / power[1] == pytest.approx(4, rel=0.02)


@pytest.fixture
def made():
    """(settings, evaluation, samples, octave of the data, study, its images) ; two samplers, two counts of steps."""
    given = {"run": "r", "dataset": "rooms", "label": "rooms", "synthetic": True, "seed": 0, "resolution": 16}
    settings = complete_settings(
        {**given, "process": {"f_type": "log", "f_N": 0.6}, "training": {"iterations": 1}, "network": {},
         "sampling": {"n_steps": 50}, "evaluation": {}}
    )  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 16, 16, 3), dtype=np.uint8)
    images[3] = 0
    rows = [(sampler, n) for sampler in ("ddim", "ancestral") for n in (5, 9)]
    study = pd.DataFrame([dict.fromkeys(STUDY_COLUMNS, 0) | {
        "sampler": sampler, "grid": "uniform", "eta": 0.0, "n_steps": n, "evaluations": n, "n_samples": 8, "value": 7.5,
        "metric": "FD"} for sampler, n in rows])  # fmt: skip
    evaluation = {"metric": "FD", "value": 3.5, "n_samples": 8, "run": "r", "seed": 0}
    octave = failures.finest_octave(radial_power_spectrum(images[1]))
    return settings, evaluation, images[0], octave, study, images


def test_a_row_for_the_samples_and_each_sampler(made):
    settings, *rest = made
    rows = failures.rows_of(settings, *rest)
    told = [(row["sampler"], row["evaluations"], row["value"], row["saturated"]) for row in rows]
    assert told == [("reverse-diffusion", 50, 3.5, 0.0), ("ddim", 9, 7.5, 0.0), ("ancestral", 9, 7.5, 1.0)]
    assert rows[1]["fine_power"] == 1.0  # its images are the data's
    assert all(set(failures.COLUMNS) <= row.keys() for row in rows)
    text = failures.render(rows, [settings])
    assert "| rooms (synthetic) | log, f(N) = 0.6 | ancestral | 9 | 7.5 | 100% | 0.00 |" in text
    figure, caption = failures.draw(rows, [settings])
    assert len(figure.axes) == 3
    assert "first 5 samples" in caption and "Enlarged smoothly" in caption


def test_images_of_another_study(made):
    settings, *rest, images = made
    with pytest.raises(UserError, match="run r: 3 sets of images for 4 rows of its study"):
        failures.rows_of(settings, *rest, images[:3])


def test_a_sampler_on_two_grids_has_two_columns_and_heun_counts_both_of_its_evaluations(made):
    settings, evaluation, samples, octave, study, images = made
    study["sampler"] = "ddim"
    study["grid"] = ["uniform", "uniform", "information", "information"]
    heun = with_keys(settings, "sampling", sampler="ode-heun")
    rows = failures.rows_of(heun, evaluation, samples, octave, study, images)
    assert [row["evaluations"] for row in rows] == [2 * 50 - 1, 9, 9]
    figure, _ = failures.draw(rows, [heun])
    lefts = [axes.get_position().x0 for axes in figure.axes]
    assert len(set(lefts)) == 3
    assert {"DDIM: 9", "DDIM, information grid: 9"} <= {text.get_text() for text in figure.texts}


def test_a_study_that_draws_like_the_run_has_a_column_of_its_own(made):
    settings, evaluation, samples, octave, study, images = made
    settings = with_keys(settings, "sampling", n_steps=9, sampler="ancestral")
    study["noise_free_steps"] = 2
    rows = failures.rows_of(settings, evaluation, samples, octave, study, images)
    figure, _ = failures.draw(rows, [settings])
    assert len({axes.get_position().x0 for axes in figure.axes}) == 3
    assert {"own samples, ancestral: 9", "ancestral: 9"} <= {text.get_text() for text in figure.texts}
    text = failures.render(rows, [settings])
    assert "| own samples, ancestral | 9 | 3.5 |" in text and "| ancestral | 9 | 7.5 |" in text
