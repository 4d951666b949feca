"""The registries of figures and tables: every entry is whole, and everything that lists figures lists these."""

import inspect
import subprocess
import sys

import pytest

from blurdiff.config.schema import config_schema
from blurdiff.reporting.exhibits import CHAPTERS
from blurdiff.reporting.figures import FIGURES, INPUTS, OPTIONS, function
from blurdiff.reporting.summaries import TABLES


@pytest.mark.parametrize("name", FIGURES)
def test_what_draws_a_figure_takes_its_inputs_and_options(name):
    figure = FIGURES[name]
    parameters = list(inspect.signature(function(figure.draw)).parameters.values())
    required = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    assert required == ["runs", *figure.inputs]
    assert set(figure.options) <= {each.name for each in parameters}
    assert set(figure.inputs) <= INPUTS.keys() and set(figure.options) <= OPTIONS.keys()
    assert set(figure.sections) <= config_schema()["properties"].keys()
    for option in figure.options:
        default = inspect.signature(function(figure.draw)).parameters[option].default
        assert default == OPTIONS[option].default


@pytest.mark.parametrize("name", TABLES)
def test_what_makes_a_table_takes_its_inputs(name):
    table = TABLES[name]
    assert list(inspect.signature(function(table.make)).parameters) == ["runs", *table.inputs]
    assert table.chapter in CHAPTERS


def test_every_input_and_option_is_used_and_read():
    assert OPTIONS.keys() == {name for figure in FIGURES.values() for name in figure.options}
    assert INPUTS.keys() == {name for each in (*FIGURES.values(), *TABLES.values()) for name in each.inputs}
    for each in INPUTS.values():
        wanted = ["path", "settings"] if each.ordered else ["paths", "runs"]
        assert list(inspect.signature(function(each.read)).parameters)[:2] == wanted
        assert each.path.format(run="r", seed=0, dataset="d").startswith("<results>/")


def test_the_schema_lists_the_figures_of_the_table():
    assert list(config_schema()["properties"]["figures"]["properties"]) == list(FIGURES)


def test_the_readme_of_the_config_lists_the_figures_of_the_table(request):
    text = (request.config.rootpath / "config" / "README.md").read_text(encoding="utf-8")
    rows = text.split("\n## `figures`\n")[1].split("\n## ")[0]
    assert [line.split("`")[1] for line in rows.splitlines() if line.startswith("| `")] == list(FIGURES)


def test_the_tables_are_read_without_what_draws():
    code = "import sys, blurdiff.reporting.figures, blurdiff.reporting.summaries; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"numpy", "pandas", "torch", "matplotlib", "seaborn"} & set(done.stdout.split())
