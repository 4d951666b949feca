"""The measurements against numbers derived otherwise, and the tables' form."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from blurdiff.audit import differences, gaussian, measure, operators, stage
from blurdiff.audit.settings import LOG, QUARTIC, paper_process
from blurdiff.audit.variations import Audit, NextStep, scaled_prediction
from blurdiff.config.schema import config_schema, validate
from blurdiff.diffusion import schedules
from blurdiff.diffusion.families import build_process


@pytest.fixture(scope="module")
def paper():
    return Audit(64, 1000)


@pytest.fixture(scope="module")
def small():
    """A small audit with its tables."""
    audit = Audit(16, 100)
    return audit, *differences.tables(audit)


def value(measurements, quantity, process=None, timestep=None):
    """The one measurement of that beginning, process and timestep."""
    found = [
        m.value
        for m in measurements
        if m.quantity.startswith(quantity) and process in (None, m.process) and timestep in (None, m.timestep)
    ]
    assert len(found) == 1, found
    return found[0]


def test_mode_order(paper):
    found = measure.mode_order(paper)
    quantity = "largest |operator − direct convolution| on a random image in [0, 1]: "
    assert value(found, quantity + "released, 3") == pytest.approx(0.11, abs=0.005)
    assert value(found, quantity + "released, 1") < 1e-13
    assert value(found, "mean D of the coarsest tenth of the modes: released") < 0.94
    assert value(found, "mean D of the coarsest tenth of the modes: paper") > 0.97


@pytest.mark.parametrize("turned", [True, False])
def test_ties_of_the_released_order(turned, small, monkeypatch):
    """An unstable sort that turns every tie around turns every pair around; one that turns none changes nothing."""
    audit, sort = small[0], torch.sort

    def unstable(values, descending, stable):
        ordered = sort(values.flip(0) if turned and not stable else values, descending=descending, stable=True)
        indices = len(values) - 1 - ordered.indices if turned and not stable else ordered.indices
        return torch.return_types.sort((ordered.values, indices))

    monkeypatch.setattr(torch, "sort", unstable)
    found = measure.ties(audit)
    assert value(found, "pairs (m, n), (n, m)") == turned * 16 * 15 / 2
    for name in audit.processes:
        assert (value(found, "largest |unstable − stable| of x_i", name) > 1e-4) == turned
        assert (value(found, "largest |unstable − stable| of a reverse step", name, 99) > 1e-3) == turned
    # "Stable" is what the key mode_order builds: without noise the difference is that of the two processes.
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: torch.zeros(shape))
    x_0 = torch.from_numpy(operators.draw_image(16))[None]
    x_i = [
        audit.build(**QUARTIC, mode_order=order).to("cpu", torch.float64).q_sample(x_0, torch.tensor([50]), 0 * x_0)
        for order in ("paper", "released")
    ]
    expected = float((x_i[0] - x_i[1]).abs().max())
    assert value(measure.ties(audit), "largest |paper − stable| of x_i", "quartic 0.140625") == pytest.approx(expected)


def test_what_never_binds(paper):
    assert measure.kernel_range(paper)[0].value == 0
    found = measure.eigenvalue_floor(paper)
    assert [m.value for m in found[:2]] == [0, 0]
    assert value(found, "smallest D") == pytest.approx(0.70316, abs=1e-5)
    assert value(found, "largest D") == pytest.approx(0.99981, abs=1e-5)
    # At the frequency of one half, a Gaussian sampled at whole pixels has Σ (−1)^k g(k) / Σ g(k), in both directions.
    k, sigma = np.arange(-20, 21), value(found, "σ from which")
    taps = np.exp(-(k**2) / (2 * sigma**2))
    assert ((-1.0) ** k * taps).sum() ** 2 / taps.sum() ** 2 == pytest.approx(0.03, rel=0.01)


def test_f_N(paper):
    found = measure.f_N(paper)
    assert value(found, "F(N): released", "quartic") == pytest.approx(28.20, abs=0.005)
    assert value(found, "F(N): paper", "log") == pytest.approx(513.5, abs=0.05)
    assert value(found, "equivalent blur at N: released", "quartic") == pytest.approx(1.51, abs=0.005)
    assert value(found, "equivalent blur at N: paper", "log") == pytest.approx(6.44, abs=0.005)
    assert value(found, "relative change", "quartic") == pytest.approx(0.140625 / 0.14 - 1)


def test_anchors(paper):
    log = measure.log_anchor(paper)
    assert value(log, "largest |Δf") == pytest.approx(0.6 * 1e-6 / np.log(1000), rel=1e-3)
    assert value(log, "released f(0)") == pytest.approx(-1.2)
    power = measure.power_anchors(paper)
    assert value(power, "largest |Δf", "linear") == pytest.approx(0.140625 / 1000)
    assert value(power, "released f(0)", "quadratic") == pytest.approx(-0.140625 / (1000**2 - 1))


def test_accumulation(paper):
    found = measure.accumulation(paper)
    quantity = "modes whose Ā_N is below"
    assert value(found, quantity, "log 0.6") == 3272
    assert value(found, quantity, "quartic 0.140625") == 0
    assert value(found, "smallest log10", "log 0.6") == pytest.approx(-161.5, abs=0.05)
    assert value(found, "smallest log10", "quartic 0.140625") == pytest.approx(-13, abs=0.05)
    first = int(value(found, "first timestep"))
    lowest = paper.processes["log 0.6"].log_alpha_bar(torch.tensor([first - 1, first])).amin(dim=(1, 2, 3)).exp()
    assert lowest.float().tolist()[0] > 0
    assert lowest[1] < 1.4e-45
    for name in paper.processes:  # a thousand roundings of 6e-8 at most; √(1 − Ā) loses half of β_1's digits
        assert 1e-8 < value(found, "largest relative error of Ā", name) < 6e-5
        assert 1e-6 < value(found, "largest relative error of √", name) < 3e-4


def test_exponents(small):
    audit = small[0]
    alpha_bar = np.exp(schedules.log_alpha_bar(schedules.noise_betas("linear", 100)))
    assert value(measure.forward_exponent(audit), "factor on the noise", None, 50) == pytest.approx(
        np.sqrt(1 - alpha_bar[50])
    )
    quantity = "factor on the prediction's term in a step, smallest"
    assert value(measure.score_exponent(audit), quantity, None, 1) == pytest.approx(1e-4**-0.5, rel=1e-4)
    assert value(measure.sampler_exponent(audit), quantity, None, 1) == pytest.approx(1e-4**1.5, rel=1e-4)


def test_scaled_prediction_of_one_is_the_default(small):
    process, S = small[0].processes["quartic 0.140625"], gaussian.spectrum(16)
    steps = list(range(100, -1, -1))
    both = {"scaled": scaled_prediction(lambda variance: 1.0), "default": gaussian.reverse_diffusion}
    ratios = gaussian.propagate(process, S, steps, both)
    np.testing.assert_array_equal(ratios["scaled"], ratios["default"])
    wrong = gaussian.propagate(process, S, steps, {"no": scaled_prediction(lambda variance: 0.0)})["no"]
    assert (wrong > ratios["default"]).all()  # without a prediction nothing takes noise away


def test_next_step(small):
    process = small[0].processes["log 0.6"]
    shifted = NextStep(**vars(process))
    i = torch.tensor([3])
    for ours, expected in zip(shifted.transition(i, i - 1), process.transition(i + 1, i), strict=True):
        torch.testing.assert_close(ours, expected)
    last = torch.tensor([100])
    for ours, expected in zip(shifted.transition(last, last - 1), process.transition(last, last - 1), strict=True):
        torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(shifted.variance(i), process.variance(i))
    name = "relative change of B in a step, largest"
    B = 1 - (1 - np.linspace(1e-4, 0.02, 100)[:2]) * (
        np.exp(process.log_D.min().item()) ** (2 * 0.6 * np.log([1, 2]) / np.log(100))
    )
    assert value(measure.step_index(small[0]), name, "log 0.6", 1) == pytest.approx(B[1] / B[0] - 1)


def test_last_noise_and_x0(small):
    audit = small[0]
    assert measure.last_noise(audit)[-1].value == pytest.approx(255 * np.sqrt(1e-4), rel=1e-4)
    F = (schedules.blur_schedule("quartic", 0.140625, 100)[1:51]).sum()
    D = build_process(paper_process(n_timesteps=100, **QUARTIC), 16).log_D.exp().min().item()
    found = measure.x0_in_figures(audit)
    assert value(found, "share of the highest mode", "quartic 0.140625", 50) == pytest.approx(D**F)


def test_fine_to_coarse(paper):
    found = measure.fine_to_coarse(paper)
    assert value(found, "factor of a mode, 1 − D, smallest") == pytest.approx(1.9e-4, rel=0.01)
    assert value(found, "factor of a mode, 1 − D, largest") == pytest.approx(0.297, abs=5e-4)
    assert value(found, "log10 Ā_N, 1 − D, smallest") == pytest.approx(-214, abs=0.5)
    assert value(found, "log10 Ā_N, 1 − D, largest") == pytest.approx(-34, abs=0.5)
    for words in ("smallest", "largest"):  # the matched control has D's values
        assert value(found, f"log10 Ā_N, reversed D, {words}") == value(found, f"log10 Ā_N, D, {words}")


def test_every_difference_has_a_row(small):
    _, rows, measurements = small
    assert list(rows["item"]) == [difference.item for difference in differences.DIFFERENCES]
    assert not rows["item"].duplicated().any()
    for difference, row in zip(differences.DIFFERENCES, rows.to_dict("records"), strict=True):
        own = measurements[measurements["item"] == difference.item]
        if isinstance(difference.measured, str):
            assert own.empty
            assert np.isnan(row["value"])
            assert row["quantity"] == f"not measured: {difference.measured}"
        else:
            assert row["value"] == own["value"].iloc[0]
            assert row["quantity"].startswith(own["quantity"].iloc[0])
    assert np.isfinite(measurements["value"]).all()
    assert not measurements.duplicated(["item", "quantity", "process", "timestep"]).any()
    assert (rows[["item", "paper", "released", "default"]] != "").all(axis=None)


@pytest.mark.parametrize("switch", [d.switch for d in differences.DIFFERENCES if d.switch])
def test_switches_are_config_keys(switch):
    """`section.key: value` is accepted by the schema; a key alone is in it."""
    name, _, text = switch.partition(": ")
    *sections, key = name.split(".")
    schema = config_schema()
    for section in sections:
        schema = schema["properties"][section]
    assert key in schema["properties"]
    if text:
        validate(yaml.safe_load(text), schema["properties"][key], "switch")


def test_markdown(small):
    audit, rows, measurements = small
    text = differences.render(audit, rows, measurements)
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("| 1") or line.startswith("| 2")]
    assert sum(line.split(" | ")[0].removeprefix("| ").isdigit() for line in table) >= 15
    for line in lines:
        if line.startswith("|") and "---" not in line:
            assert line.replace("\\|", "").count("|") in (5, 8)  # bars inside a cell are escaped
    assert "16×16 pixels, N = 100" in text
    assert "<NA>" not in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("number", "unit", "text"), [(3272.0, "modes", "3,272 modes"), (0.105819, "px", "0.1058 px"), (1e-6, "", "1e-06")]
)
def test_number_text(number, unit, text):
    assert differences.number_text(number, unit) == text


def test_tables_are_repeatable(small):
    chosen = [d for d in differences.DIFFERENCES if "order" in d.item or "seed" in d.item]
    again = differences.tables(Audit(16, 100), chosen)
    pd.testing.assert_frame_equal(again[0], small[1][small[1]["item"].isin(again[0]["item"])].reset_index(drop=True))


def test_two_processes_of_table_1():
    audit = Audit(16, 100)
    expected = {"log 0.6": LOG, "quartic 0.140625": QUARTIC}
    for name, keys in expected.items():
        total = schedules.blur_schedule(**keys, n_timesteps=100)[1:].sum()
        assert float(audit.processes[name].blur[-1]) == pytest.approx(total)
    assert audit.timesteps == [1, 10, 50, 100]


def test_the_page_names_what_is_there(small):
    """Every *item…* and `column` that docs/audit.md points to exists."""
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    _, rows, measurements = small
    names = [*rows["item"], *measurements["quantity"]]
    pointers = {pointer.replace("\\|", "|").strip("…") for pointer in re.findall(r"(?<!\*)\*([^*\n]+)\*", text)}
    pointers -= {"item", "quantity", "column", "not", "mode", "Mode"}
    assert len(pointers) > 20
    lost = [pointer for pointer in pointers if not any(pointer.strip("…: ") in name for name in names)]
    assert not lost
    for name in re.findall(r"`((?:differences|measurements|operator|gaussian)\w*\.\w+)`", text):
        assert name in [name for names in stage.GROUPS.values() for name in names]
