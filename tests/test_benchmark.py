import pandas as pd
import torch

from blurdiff import benchmark
from blurdiff.cli import main

torch.set_num_threads(1)


def test_rows_are_shares_of_the_networks_forward_pass(tmp_path, monkeypatch):
    small = {"channels": 32, "multipliers": [1], "n_res_blocks": 1, "attention_resolutions": [], "n_heads": 1}
    monkeypatch.setattr(benchmark, "PAPER_NETWORK", small)
    output = tmp_path / "benchmark.csv"
    assert (
        main(["benchmark", "--batch-size", "2", "--resolution", "16", "--repeats", "2", "--output", str(output)]) == 0
    )
    table = pd.read_csv(output)
    assert tuple(table.columns) == benchmark.COLUMNS
    assert list(table["implementation"][:2]) == ["unet_forward", "q_sample, paper order"]
    assert len(table) == 9
    assert table["share_of_unet_forward"][0] == 1
    assert (abs(table["seconds"] / table["seconds"][0] - table["share_of_unet_forward"]) < 1e-4).all()
    assert (table["seconds_min"] <= table["seconds"]).all()
    assert (table["seconds"] <= table["seconds_max"]).all()


def test_a_gpu_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["benchmark", "--device", "cuda", "--output", str(tmp_path / "b.csv")]) == 1
    assert "sees no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
