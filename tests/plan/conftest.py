import copy
import json

import pytest
import yaml

from blurdiff.cli import main

TINY = {
    "resolution": 16,
    "datasets": {"rooms": {"synthetic": "bedroom", "n_images": 12, "seed": 1}},
    "process": {"n_timesteps": 4},
    "network": {"channels": 16, "multipliers": [1, 2], "n_res_blocks": 1, "attention_resolutions": [8], "n_heads": 2,
                "n_groups": 4},
    "training": {"iterations": 4, "batch_size": 2, "learning_rate": 0.001, "ema_decay": 0.5, "checkpoint_every": 2},
    "sampling": {"n_samples": 5, "shard_size": 3, "n_strip": 2, "n_snapshots": 3},
    "evaluation": {"network": "efficientnet-lite0", "floor_repeats": 2},
    "runs": [{"dataset": "rooms", "f_type": "none"}, {"dataset": "rooms", "f_type": "quartic", "f_N": 0.14}],
    "sampler_study": {"runs": ["rooms_quartic"], "n_steps": [2, 3], "n_samples": 4},
}  # fmt: skip


@pytest.fixture
def tiny():
    """A config that is made in seconds, to be changed."""
    return copy.deepcopy(TINY)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """The working folder of the test, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def planned(capsys):
    """A function that runs `blurdiff plan` on configs (dicts, or paths) and returns the plan, or its text."""

    def plan(*configs, options=("--no-calibration",), as_json=True, status=0):
        paths = []
        for number, config in enumerate(configs):
            paths.append(str(config))
            if isinstance(config, dict):
                paths[-1] = f"config{number}.yaml"
                with open(paths[-1], "w", encoding="utf-8") as file:
                    yaml.safe_dump(config, file)
        capsys.readouterr()
        assert main(["plan", "--configfile", *paths, *options, *["--json"] * as_json]) == status
        captured = capsys.readouterr()
        if status:
            return captured.err
        return json.loads(captured.out) if as_json else captured.out

    return plan
