import csv

import pytest

from blurdiff.benchmark.table import COLUMNS
from blurdiff.cli import main
from running import run_snakemake


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    options = ["--quick", "--stages", "frechet", "preprocessing"]
    files = ["--output", str(folder / "benchmark.csv"), "--figure", str(folder / "figures" / "benchmark.png")]
    assert main(["benchmark", *options, *files]) == 0
    return folder


@pytest.fixture(scope="module")
def rows(made):
    with open(made / "benchmark.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_has_a_row_for_each_implementation(rows):
    assert tuple(rows[0]) == COLUMNS
    assert [row["stage"] for row in rows if row["stage"] != "ceilings"] == ["preprocessing, WEBP"] * 3 + [
        "Fréchet distance"
    ] * 2
    for row in rows:
        assert float(row["throughput_min"]) <= float(row["throughput"]) <= float(row["throughput_max"])
        assert row["device"] == "cpu" and row["device_name"] and row["threads"] == "1" and row["repeats"] == "2"
        assert "torch " in row["versions"] and row["date"].endswith("Z")


def test_ratios_are_those_of_the_throughputs(rows):
    at = {(row["stage"], row["implementation"]): float(row["throughput"]) for row in rows}
    compared = [row for row in rows if row["baseline"]]
    assert len(compared) == 5
    for row in compared:
        ratio = float(row["throughput"]) / at[row["stage"], row["baseline"]]
        assert float(row["ratio"]) == pytest.approx(ratio, rel=1e-5)
        assert row["baseline"] != row["implementation"] or ratio == 1
        for wanted, reached in zip(row["target"].split("; "), row["reached"].split("; "), strict=True):
            if wanted:
                against = wanted.split(" x ")[1]
                ratio = float(row["throughput"]) / at[row["stage"], against]
                assert float(reached) == pytest.approx(ratio, rel=6e-3)


def test_results_were_compared_in_the_run(rows):
    equal = {row["implementation"]: row["equal"] for row in rows if row["equal"]}
    assert equal == {"ours, to images.npy": "yes", "ours, symmetric eigenvalues": "yes"}
    assert all(int(row["peak_memory_bytes"]) > 1e7 for row in rows if row["stage"] != "ceilings")


def test_figure_and_caption(made):
    assert (made / "figures" / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert (made / "figures" / "benchmark.pdf").read_bytes().startswith(b"%PDF")
    assert (made / "figures" / "benchmark.md").read_text(encoding="utf-8").startswith("Of --quick")


def test_a_gpu_that_is_not_there_is_one_line(tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["benchmark", "--device", "cuda", "--output", str(tmp_path / "b.csv")]) == 1
    error = capsys.readouterr().err
    assert "sees no GPU" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--threads", "--repeats"])
def test_numbers_below_one_are_refused(option, tmp_path, capsys):
    assert main(["benchmark", option, "-1", "--output", str(tmp_path / "b.csv")]) == 1
    assert f"{option} must be 1 or more" in capsys.readouterr().err


def test_the_rule_gives_the_configs_device_and_network(tmp_path):
    output = run_snakemake(tmp_path, "--cores", "2", "--dry-run", "--printshellcmds", "benchmark")
    line = next(line for line in output.splitlines() if "blurdiff benchmark" in line)
    for words in ("--device cpu --settings", "results/runs/bedroom_none/seed0/settings.json", "--threads 2",
                  "--output results/benchmark.csv --figure results/figures/benchmark.png"):  # fmt: skip
        assert words in line
