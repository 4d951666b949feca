"""The differences between the paper and the released code, each with what was measured about it, as two tables.

The facts about the code are those of its repository sangyun884/blur-diffusion at commit 9dd8adb (2022).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from blurdiff.audit import measure
from blurdiff.audit.measure import Measurement
from blurdiff.audit.variations import Audit

TEXTS = ("item", "paper", "released", "default", "switch")


@dataclass(frozen=True)
class Difference:
    """One row: what it is about, in paper, code and here, the config key that switches it ("" for none), and its
    measurements or why there are none."""

    item: str
    paper: str
    released: str
    default: str
    switch: str
    measured: Callable[[Audit], list[Measurement]] | str


DIFFERENCES = [
    Difference(
        "order of D over the modes of an RGB image", "the blur",
        "the vector of eigenvalues is repeated channel by channel, the modes are interleaved by channel: not the blur",
        "paper", "process.mode_order: released", measure.mode_order,
    ),
    Difference(
        "order of modes with the same D", "without effect",
        "by torch.sort in float32, not asked to be stable: what PyTorch makes of a tie",
        "by flat index, as a stable sort", "", measure.ties,
    ),
    Difference(
        "range of the blur's kernel", "not stated", "half-open: one corner entry of the matrix is missing",
        "full", "", measure.kernel_range,
    ),
    Difference(
        "floor of 0.03 and clamp at 1 for the eigenvalues", "none", "present",
        "paper", "process.floor: 0.03", measure.eigenvalue_floor,
    ),
    Difference(
        "value of f(N)", "0.14 and 0.6", "(σ_max/σ)²: 0.15 gives 0.140625, 0.3098 gives 0.6 (rounded)",
        "0.140625 and 0.6", "process.f_N", measure.f_N,
    ),
    Difference(
        "log schedule at small i", "f(0) = 0", "f_N ln(i + 1e-6)/ln N",
        "f_N ln i/ln N, f(0) = 0", "process.f_anchor: released", measure.log_anchor,
    ),
    Difference(
        "linear and quadratic schedules", "f(0) = 0", "pass through 0 at i = 1, so that f(0) < 0",
        "paper", "process.f_anchor: released", measure.power_anchors,
    ),
    Difference(
        "Ā_0", "I", "0, as padding; its own sampler does not read it",
        "paper", "", measure.alpha_bar_0,
    ),
    Difference(
        "how Ā is accumulated", "a product", "cumulative product in float32",
        "sum of logarithms in float64", "", measure.accumulation,
    ),
    Difference(
        "exponent in equation 3", "(1 − ᾱ)²", "1 − ᾱ", "released; the paper's is taken for a misprint", "",
        measure.forward_exponent,
    ),
    Difference(
        "exponent in equations 15 to 17", "(I − Ā)⁻¹", "(I − Ā)^(−1/2)",
        "released; the paper's is taken for a misprint", "", measure.score_exponent,
    ),
    Difference(
        "exponent in equation 20", "I − Ā", "(I − Ā)^(−1/2)",
        "released; the paper's is taken for a misprint", "", measure.sampler_exponent,
    ),
    Difference(
        "index of B in the reverse step", "B_{i+1}", "B_i", "released", "", measure.step_index,
    ),
    Difference(
        "first timestep of sampling and range of training", "N",
        "sampling starts at N − 1, training draws i from 1 to N − 1", "paper", "process.skip_last_timestep: true",
        measure.first_step,
    ),
    Difference(
        "noise in the last steps of sampling", "in every step", "none for i ≤ 2",
        "released", "sampling.noise_free_steps: 0", measure.last_noise,
    ),
    Difference(
        "x̂_0 in figures", "not stated", "divides by √ᾱ only, so that x̂_0 stays blurred",
        "exact: divides by √Ā", "sampling.strip_x0: released", measure.x0_in_figures,
    ),
    Difference(
        "range of image values", "not stated", "[0, 1]", "[0, 1]", "process.range: symmetric",
        measure.image_range,
    ),
    Difference(
        "learning rate", "5e-5 in the text, 1e-5 in the appendix", "5e-5", "5e-5", "training.learning_rate",
        "needs training at the paper's scale",
    ),
    Difference(
        "fine-to-coarse diffusion", "D replaced by I − D", "absent", "built as in the paper; reversed D as its control",
        "process.direction", measure.fine_to_coarse,
    ),
    Difference(
        "number of samples for FID", "10,000", "10,000 // batch batches: 9,984 with its default batch of 32",
        "10,000 exactly", "sampling.n_samples", measure.sample_count,
    ),
    Difference(
        "reference images for FID", "not stated", "all images of a folder, its size unknown",
        "all preprocessed training images, their number recorded", "datasets",
        "the authors' folder is not known",
    ),
    Difference(
        "moving average of the weights", "decay 0.9999", "decay 0.9999, no warm-up, starts as the weights after step 1",
        "released", "training.ema_decay", measure.ema,
    ),
    Difference(
        "checkpoint", "not stated", "averaged weights only: no optimizer, step or raw weights",
        "full training state", "", "changes no number; an interrupted run cannot be continued exactly",
    ),
    Difference(
        "random seed", "not stated", "none", "seeded", "seeds",
        "changes no expectation; a number of the released code cannot be drawn again",
    ),
]  # fmt: skip


def tables(audit: Audit, differences: Sequence[Difference] = DIFFERENCES) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(one row a difference with its first measurement, one row a measurement), items in the same order."""
    rows, measurements = [], []
    for difference in differences:
        row = {key: getattr(difference, key) for key in TEXTS}
        if isinstance(difference.measured, str):
            rows.append({**row, "quantity": f"not measured: {difference.measured}", "value": None, "unit": ""})
            continue
        found = difference.measured(audit)
        head = found[0]
        words = [head.quantity, head.process, "" if head.timestep is None else f"i = {head.timestep}"]
        rows.append({**row, "quantity": ", ".join(filter(None, words)), "value": head.value, "unit": head.unit})
        measurements += [{"item": difference.item, **asdict(measurement)} for measurement in found]
    table = pd.DataFrame(measurements).astype({"timestep": "Int64", "value": float})
    return pd.DataFrame(rows), table[["item", "quantity", "process", "timestep", "value", "unit"]]


def render(audit: Audit, rows: pd.DataFrame, measurements: pd.DataFrame) -> str:
    """Both tables as Markdown: the differences, then under a heading each what was measured about it."""
    lines = [
        "# Paper and released code: the differences and their measured effect",
        "",
        f"{audit.resolution}×{audit.resolution} pixels, N = {audit.n_timesteps}, linear noise schedule, blur of"
        f" {audit.sigma} px. Computed without any trained network; docs/audit.md explains each line.",
        "",
        "| | difference | paper | released code | here | switch | effect |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(rows.to_dict("records"), start=1):
        effect = (
            row["quantity"]
            if pd.isna(row["value"])
            else f"{row['quantity']}: **{number_text(row['value'], row['unit'])}**"
        )
        switch = f"`{row['switch']}`" if row["switch"] else ""
        cells = [str(number), row["item"], row["paper"], row["released"], row["default"], switch, effect]
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    for number, item in enumerate(rows["item"], start=1):
        own = measurements[measurements["item"] == item]
        if own.empty:
            continue
        lines += ["", f"## {number}. {item}", "", "| quantity | process | i | value |", "|---|---|---|---|"]
        for row in own.to_dict("records"):
            timestep = "" if pd.isna(row["timestep"]) else str(row["timestep"])
            cells = [row["quantity"], row["process"], timestep, number_text(row["value"], row["unit"])]
            lines.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join(lines) + "\n"


def number_text(value: float, unit: str) -> str:
    """`0.106 image range`, `3,272 of 4096 modes`, `4.5e-15`."""
    whole = float(value).is_integer() and abs(value) < 1e7
    return f"{int(value):,} {unit}".rstrip() if whole else f"{value:.4g} {unit}".rstrip()


def cell(text: str) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|")
