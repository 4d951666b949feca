"""Put the sampler studies of several runs together: a table, and a figure of distance against network evaluations."""

import argparse
import io
from pathlib import Path

from blurdiff.errors import UserError

METHOD_NAMES = {
    "reverse-diffusion": "reverse diffusion",
    "ancestral": "ancestral",
    "ddim": "DDIM",
    "ode-heun": "ODE, Heun",
    "ode-adaptive": "ODE, adaptive",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    parser.add_argument("--studies", nargs="+", required=True, metavar="CSV", help="study.csv of each run")
    parser.add_argument("--settings", required=True, help="list of resolved settings, one a run: JSON, or a path")
    parser.add_argument("--csv", required=True, help="table to write, one row a run, sampler, grid and number of steps")
    parser.add_argument("--output", required=True, metavar="PNG", help="figure to write")
    parser.add_argument("--pdf", required=True, metavar="PDF", help="the same figure as vector graphics")
    parser.add_argument("--caption", required=True, metavar="MD", help="caption to write")


def run(arguments: argparse.Namespace) -> None:
    """Write table, figure and caption; nothing when an input is bad."""
    import pandas as pd

    from blurdiff.files import atomic_path, write_text
    from blurdiff.reporting import labels, style
    from blurdiff.sampler_study import COLUMNS

    runs = labels.read_runs(arguments.settings)
    frames = []
    for path in arguments.studies:
        try:
            text = Path(path).read_text(encoding="utf-8")
            if not text.endswith("\n"):
                raise ValueError("its last line is not whole")
            frame = pd.read_csv(io.StringIO(text))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}; delete it and run again") from error
        if tuple(frame.columns) != COLUMNS or frame.empty:
            raise UserError(f"{path} is not a study of samplers; delete it and run again")
        frames.append(frame)
        tried = frame[["sampler", "grid", "eta", "n_steps"]].values.tolist()
        if tried != frames[0][["sampler", "grid", "eta", "n_steps"]].values.tolist():
            raise UserError(f"{path} has other samplers or steps than {arguments.studies[0]}; make both anew")
    table = pd.concat(frames, ignore_index=True)
    for column in ("metric", "n_samples"):
        if table[column].nunique() > 1:
            raise UserError(f"the studies mix {column}: {', '.join(map(str, table[column].unique()))}; make them anew")
    with style.style():
        figure, caption = draw(table, runs)
        with atomic_path(arguments.csv) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
        style.save(figure, arguments.output, arguments.pdf, "blurdiff samplers")
    write_text(arguments.caption, caption + "\n")


def method_label(row) -> str:
    """A sampler with its options, and its grid where that is not the uniform one."""
    name = METHOD_NAMES.get(row["sampler"], row["sampler"])
    if row["sampler"] == "ddim" and row["eta"] > 0:
        name += f" η = {row['eta']:g}"
    grid = {"snr": "SNR"}.get(row["grid"], row["grid"])
    return name if grid == "uniform" else f"{name}, {grid} grid"


def draw(table, runs: list[dict]) -> tuple:
    """A panel a run, a line a sampler and grid, both axes logarithmic; returns figure and caption."""
    import seaborn
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, NullFormatter, ScalarFormatter

    from blurdiff.reporting import labels, style

    table = table.assign(method=table.apply(method_label, axis=1))
    methods = list(dict.fromkeys(table["method"]))
    looks = list(style.SCHEDULE_LOOKS.values()) + style.OTHER_LOOKS
    palette = {method: looks[k % len(looks)][0] for k, method in enumerate(methods)}
    dashes = {method: looks[k % len(looks)][1] for k, method in enumerate(methods)}
    names = labels.run_labels(runs)
    figure = Figure(figsize=(style.TEXT_WIDTH, 2.6), layout="constrained")
    axes = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    several_sets = len({run["dataset"] for run in runs}) > 1
    for axis, run, name in zip(axes, runs, names, strict=True):
        rows = table[(table["run"] == run["run"]) & (table["seed"] == run["seed"])]
        seaborn.lineplot(
            rows, x="evaluations", y="value", hue="method", style="method", palette=palette, dashes=dashes,
            markers=False, marker="o", markersize=4, errorbar=None, legend=axis is axes[-1], ax=axis,
        )  # fmt: skip
        if rows["floor"].notna().any():
            axis.axhline(rows["floor"].iloc[0], color=style.GREY, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel=table["metric"].iloc[0])
        ticks = sorted(rows["evaluations"].unique())
        axis.set_xticks(thin_ticks(ticks))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(3, 1)))
        axis.set_title(f"{labels.data_label(run)}: {name}" if several_sets else name)
    handles, texts = axes[-1].get_legend_handles_labels()
    axes[-1].get_legend().remove()
    figure.legend(handles, texts, loc="outside lower center", ncols=min(len(methods), 4))
    floor = " Dotted: as many real images against all the others." if table["floor"].notna().any() else ""
    caption = (
        f"{table['metric'].iloc[0]} of {table['n_samples'].iloc[0]:,} samples against the number of network evaluations"
        f" an image, by sampler and grid of timesteps; lower is better, both axes logarithmic.{floor} One seed, and the"
        f" same initial noise everywhere. Data: {labels.data_note(runs)}; {labels.training_note(runs)}."
    )
    return figure, caption


def thin_ticks(values: list[int], ratio: float = 1.5) -> list[int]:
    """The values that stand far enough apart on a logarithmic axis to be labelled."""
    kept: list[int] = []
    for value in values:
        if not kept or value >= ratio * kept[-1]:
            kept.append(value)
    return kept
