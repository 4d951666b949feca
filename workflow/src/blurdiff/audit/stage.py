"""Audit: what the paper and the authors' released code do differently, measured without a trained network."""

from pathlib import Path

import torch

from blurdiff.audit import differences, figures, gaussian
from blurdiff.errors import UserError
from blurdiff.reporting import style
from blurdiff.reporting.tables import write_csv
from blurdiff.runtime.files import write_text

GROUPS = {
    "differences": ("differences.csv", "differences.md", "measurements.csv"),
    "operator": ("operator.png", "operator.pdf"),
    "gaussian": ("gaussian.csv", "gaussian_summary.csv", "gaussian.png", "gaussian.pdf"),
}
MINIMUM = {"resolution": 16, "n_timesteps": 100}


def make(outputs: list[str], resolution: int, n_timesteps: int) -> None:
    """Make the files that `outputs` names; raises UserError, before any is made, for a bad name or number."""
    groups = group_paths(outputs)
    for name, value in {"resolution": resolution, "n_timesteps": n_timesteps}.items():
        if value < MINIMUM[name]:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be {MINIMUM[name]} or more")
    torch.set_num_threads(1)  # tensors are small: more threads only wait for each other
    makers = {"differences": make_differences, "operator": make_operator, "gaussian": make_gaussian}
    for group, paths in groups.items():
        makers[group](paths, resolution, n_timesteps)


def group_paths(outputs: list[str]) -> dict[str, dict[str, Path]]:
    """{group: {file name: path}} of the output paths.

    Raises UserError for a name that is in no group, one given twice, and a group with a file missing.
    """
    known = {name: group for group, names in GROUPS.items() for name in names}
    groups: dict[str, dict[str, Path]] = {}
    for path in map(Path, outputs):
        if path.name not in known:
            raise UserError(f"--output {path}: the audit makes no such file; it makes {', '.join(known)}")
        group = groups.setdefault(known[path.name], {})
        if path.name in group:
            raise UserError(f"--output {path}: {path.name} is asked for twice")
        group[path.name] = path
    for name, paths in groups.items():
        missing = [file for file in GROUPS[name] if file not in paths]
        if missing:
            raise UserError(f"--output: {missing[0]} is made together with {', '.join(paths)}; name it too")
    return groups


def make_differences(paths: dict[str, Path], resolution: int, n_timesteps: int) -> None:
    audit = differences.Audit(resolution, n_timesteps)
    rows, measurements = differences.tables(audit)
    write_csv(rows, paths["differences.csv"], digits=10)
    write_csv(measurements, paths["measurements.csv"], digits=10)
    write_text(paths["differences.md"], differences.render(audit, rows, measurements))


def make_operator(paths: dict[str, Path], resolution: int, n_timesteps: int) -> None:
    with style.style():
        figure = figures.operator_figure(resolution, n_timesteps)
        style.save(figure, paths["operator.png"], paths["operator.pdf"], "blurdiff audit: operator")


def make_gaussian(paths: dict[str, Path], resolution: int, n_timesteps: int) -> None:
    curves, summary = gaussian.experiment(resolution, n_timesteps)
    write_csv(curves, paths["gaussian.csv"], digits=10)
    write_csv(summary, paths["gaussian_summary.csv"], digits=10)
    with style.style():
        figure = figures.gaussian_figure(curves)
        style.save(figure, paths["gaussian.png"], paths["gaussian.pdf"], "blurdiff audit: samplers on Gaussian data")
