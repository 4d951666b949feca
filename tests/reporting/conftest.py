"""Small fabricated runs: settings, and the files that the stages before reporting would have left."""

import csv
import json

import pandas as pd
import pytest
from fabricated import evaluation_of, make_settings, write_files, write_results

from blurdiff.cli import main
from blurdiff.evaluation.records import STUDY_COLUMNS


@pytest.fixture
def settings():
    """Make the settings of a run."""
    return make_settings


@pytest.fixture
def runs_with_files(tmp_path):
    """Write the files of runs; gives the arguments of the stage `figure` by option name, one path per run."""

    def make(runs: list[dict]) -> dict[str, list[str]]:
        paths = [write_files(tmp_path / f"{run['run']}_{run['seed']}", run) for run in runs]
        return {name: [str(path[name]) for path in paths] for name in paths[0]}

    return make


@pytest.fixture
def write_evaluation(tmp_path):
    """Write the fid.json of a run; gives its path."""

    def write(run: dict, value: float, **changes) -> str:
        path = tmp_path / f"{run['run']}_{run['seed']}_fid.json"
        path.write_text(json.dumps(evaluation_of(run, value, **changes)))
        return str(path)

    return write


@pytest.fixture
def write_study(tmp_path):
    """Write the samplers.csv of a run, of rows that say what is not 0; gives its path."""

    def write(run: str, seed: int, rows: list[dict]) -> str:
        path = tmp_path / f"{run}_{seed}_samplers.csv"
        usual = dict.fromkeys(STUDY_COLUMNS, 0) | {"run": run, "seed": seed, "n_samples": 96, "metric": "F"}
        pd.DataFrame([usual | row for row in rows]).to_csv(path, index=False)
        return str(path)

    return write


@pytest.fixture
def make_table(tmp_path, capsys):
    """Run the stage `table`, which writes both files or none; gives (status, rows of the CSV, Markdown, error text)."""

    def make(evaluations, name="table1", studies=()):
        output, markdown = (tmp_path / "out" / f"{name}.{suffix}" for suffix in ("csv", "md"))
        outputs = [f"--output={output}", f"--markdown={markdown}"]
        status = main(["table", f"--name={name}", "--evaluations", *evaluations, "--studies", *studies, *outputs])
        if status:
            assert not output.exists() and not markdown.exists()
            return status, [], "", capsys.readouterr().err
        return status, list(csv.DictReader(output.open())), markdown.read_text(), ""

    return make


@pytest.fixture
def results(tmp_path):
    """Write a config and its results; gives the config's path."""
    return lambda **changes: write_results(tmp_path, **changes)
