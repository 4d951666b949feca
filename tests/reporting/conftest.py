"""Small fabricated runs: settings, and the files that the stages before reporting would have left."""

import json

import pytest
from fabricated import evaluation_of, make_settings, write_files, write_results


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
def results(tmp_path):
    """Write a config and its results; gives the config's path."""
    return lambda **changes: write_results(tmp_path, **changes)
