"""A run of every stage: its config, and the command line of each stage with the files that it makes."""

from tiny import NETWORK, tiny_config

CONFIG = tiny_config(
    datasets={"rooms": {"synthetic": "bedroom"}},
    network=NETWORK,
    sampling={"n_samples": 4, "shard_size": 2, "n_steps": 3, "n_strip": 2, "n_snapshots": 3},
    runs=[{"dataset": "rooms", "f_type": "quartic", "f_N": 0.5}],
)
SETTINGS = ["--settings", "run.json"]
DATA = ["--images", "images.npy", "--manifest", "manifest.json"]
# Each stage by a name of its own: its command line, the files that it makes.
STAGES = {
    "train": (
        ["train", *SETTINGS, *DATA, "--store", "store", "--output", "model.safetensors", "--history", "history.csv"],
        ["model.safetensors", "history.csv"],
    ),
    "sample": (["sample", *SETTINGS, "--model", "model.safetensors", "--shard", "0", "--output", "0.npz"], ["0.npz"]),
    "sample 1": (["sample", *SETTINGS, "--model", "model.safetensors", "--shard", "1", "--output", "1.npz"], ["1.npz"]),
    "gather": (
        ["gather", "--shards", "0.npz", "1.npz", "--n-samples", "4", "--output", "samples.npz", "--strips",
         "strips.npz"],
        ["samples.npz", "strips.npz"],
    ),
    "reference": (
        ["reference", *DATA, "--network", "efficientnet-lite0", "--n-samples", "4", "--output", "reference.npz"],
        ["reference.npz"],
    ),
    "evaluate": (
        ["evaluate", *SETTINGS, "--samples", "samples.npz", "--reference", "reference.npz", "--network",
         "efficientnet-lite0", "--output", "fid.json", "--statistics", "statistics.npz"],
        ["fid.json", "statistics.npz"],
    ),
    "table": (["table", "--evaluations", "fid.json", "--output", "t.csv", "--markdown", "t.md"], ["t.csv", "t.md"]),
}  # fmt: skip
FIGURES = {
    "figure1": ["--strips", "strips.npz"],
    "samples": ["--samples", "samples.npz", "--images", "images.npy", "--manifests", "manifest.json"],
    "training": ["--histories", "history.csv"],
    "metrics": ["--evaluations", "fid.json"],
}
for name, inputs in FIGURES.items():
    made = [f"{name}.png", f"{name}.pdf", f"{name}.md"]
    outputs = ["--output", made[0], "--pdf", made[1], "--caption", made[2]]
    STAGES[f"figure {name}"] = (["figure", "--name", name, "--settings", "runs.json", *inputs, *outputs], made)
