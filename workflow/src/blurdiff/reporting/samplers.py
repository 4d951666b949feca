"""Put the sampler studies of several runs together: a table, and a figure of distance against network evaluations."""

import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from blurdiff.config.settings import SAMPLERS, SamplerConfig, Settings
from blurdiff.errors import UserError
from blurdiff.reporting import labels, style
from blurdiff.reporting.curves import plain_log_ticks
from blurdiff.reporting.summaries import Made


def make(runs: Sequence[Settings], studies: Sequence[pd.DataFrame]) -> Made:
    """The rows of the studies, and a figure of them; raises UserError as `together` does."""
    table = together(studies, runs)
    return Made(table, render(table), *draw(table, runs))


def together(studies: Sequence[pd.DataFrame], runs: Sequence[Settings]) -> pd.DataFrame:
    """The rows of several studies (tables.read_studies), one after another.

    Raises UserError when they differ in samplers, steps, metric or sample count, or there is not one for each run.
    """
    method = ["sampler", "grid", "eta", "noise_free_steps", "n_steps"]
    for study in studies:
        if study[method].values.tolist() != studies[0][method].values.tolist():
            first = studies[0].attrs["path"]
            raise UserError(f"{study.attrs['path']} has other samplers or steps than {first}; make both anew")
    own = [(study["run"].iloc[0], study["seed"].iloc[0]) for study in studies]
    for run in runs:
        if own.count((run.run, run.seed)) != 1:
            raise UserError(f"--studies: give one samplers.csv of run {run.run}, seed {run.seed}")
    table = pd.concat(studies, ignore_index=True)
    for column in ("metric", "n_samples"):
        if table[column].nunique() > 1:
            raise UserError(f"the studies mix {column}: {', '.join(map(str, table[column].unique()))}; make them anew")
    return table


def render(table: pd.DataFrame) -> str:
    """The table in Markdown: a line for each run, sampler and number of steps."""
    heads = ["run", "sampler", "seed", "steps", "network evaluations", table["metric"].iloc[0], "floor"]
    lines = [
        [labels.markdown(row["run"]), method_label(row), *(str(row[key]) for key in ("seed", "n_steps", "evaluations")),
         *("–" if pd.isna(row[key]) else f"{row[key]:.1f}" for key in ("value", "floor"))]
        for row in table.to_dict("records")
    ]  # fmt: skip
    return labels.table(heads, 5, lines)


def method_label(row: Mapping) -> str:
    """A sampler with its options where they are not the usual ones, and its grid where that is not the uniform one."""
    name = SAMPLERS.get(row["sampler"], row["sampler"])
    if row["sampler"] == "ddim" and row["eta"] > 0:
        name += f" η = {row['eta']:g}"
    quiet = row.get("noise_free_steps", SamplerConfig.noise_free_steps)
    if row["sampler"] == "reverse-diffusion" and not pd.isna(quiet) and quiet != SamplerConfig.noise_free_steps:
        name += f", the last {quiet:.0f} steps without noise" if quiet else ", noise in every step"
    grid = {"snr": "SNR"}.get(row["grid"], row["grid"])
    return name if grid == "uniform" else f"{name}, {grid} grid"


def draw(table: pd.DataFrame, runs: Sequence[Mapping]) -> tuple[Figure, str]:
    """One panel per run, one line per sampler and grid, both axes logarithmic; returns figure and caption.

    A line is the mean over seeds, and where there are several the band around it their deviation.
    """
    n_seeds = len({run["seed"] for run in runs})
    runs = list({run["run"]: run for run in runs}.values())
    table = table.assign(method=table.apply(method_label, axis=1))
    methods = list(dict.fromkeys(table["method"]))
    looks = {method: style.LOOKS[k % len(style.LOOKS)] for k, method in enumerate(methods)}
    palette = {method: colour for method, (colour, _) in looks.items()}
    dashes = {method: dash for method, (_, dash) in looks.items()}
    names = labels.run_labels(runs, with_seed=False)
    columns = min(len(runs), 4)
    lines = -(-len(runs) // columns)
    figure = Figure(figsize=(style.TEXT_WIDTH, 0.6 + 2.0 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    axes = grid[: len(runs)]
    for empty in grid[len(runs) :]:
        empty.remove()
    several_sets = len({run["dataset"] for run in runs}) > 1
    for axis, run, name in zip(axes, runs, names, strict=True):
        rows = table[table["run"] == run["run"]]
        seaborn.lineplot(
            rows, x="evaluations", y="value", hue="method", style="method", palette=palette, dashes=dashes,
            markers=False, marker="o", markersize=4, errorbar="sd" if n_seeds > 1 else None, legend=axis is axes[-1],
            ax=axis,
        )  # fmt: skip
        if rows["floor"].notna().any():
            axis.axhline(rows["floor"].iloc[0], color=style.GREY, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel=table["metric"].iloc[0])
        ticks = sorted(rows["evaluations"].unique())
        axis.set_xticks(thin_ticks(ticks))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        title = f"{labels.data_label(run)}: {name}" if several_sets else name
        axis.set_title("\n".join(textwrap.wrap(labels.verbatim(title), 28, break_on_hyphens=False)), fontsize=7)
    plain_log_ticks(axes[0].yaxis)
    handles, texts = axes[-1].get_legend_handles_labels()
    axes[-1].get_legend().remove()
    figure.legend(handles, texts, loc="outside lower center", ncols=min(len(methods), 4))
    seeds = f"Mean over {n_seeds} seeds, the band ± one standard deviation" if n_seeds > 1 else "One seed"
    floor = " Dotted: as many real images against all the others." if table["floor"].notna().any() else ""
    caption = (
        f"{table['metric'].iloc[0]} of {table['n_samples'].iloc[0]:,} samples against the number of network evaluations"
        f" an image, by sampler and grid of timesteps; lower is better, both axes logarithmic.{floor} {seeds}, and the"
        f" same initial noise everywhere. Data: {labels.data_note(runs)}; {labels.training_note(runs)}."
    )
    return figure, caption


def thin_ticks(values: list[int], ratio: float = 1.25) -> list[int]:
    """The values that stand far enough apart on a logarithmic axis to be labelled."""
    kept: list[int] = []
    for value in values:
        if not kept or value >= ratio * kept[-1]:
            kept.append(value)
    return kept
