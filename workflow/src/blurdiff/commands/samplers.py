"""Put the sampler studies of several runs together: a table, and a figure of distance against network evaluations."""

import argparse
import io
from pathlib import Path

from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    parser.add_argument("--studies", nargs="+", required=True, metavar="CSV", help="study.csv of each run")
    parser.add_argument("--settings", required=True, nargs="+", metavar="JSON", help="the settings of each run")
    parser.add_argument("--csv", required=True, help="table to write, one row a run, sampler, grid and number of steps")
    parser.add_argument("--output", required=True, metavar="PNG", help="figure to write")
    parser.add_argument("--pdf", required=True, metavar="PDF", help="the same figure as vector graphics")
    parser.add_argument("--caption", required=True, metavar="MD", help="caption to write")


def run(arguments: argparse.Namespace) -> None:
    """Write table, figure and caption; nothing when an input is bad."""
    import pandas as pd

    from blurdiff.evaluation.study import COLUMNS
    from blurdiff.reporting import labels, style
    from blurdiff.reporting.samplers import draw
    from blurdiff.runtime.files import atomic_path, write_text

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
