"""Every command of `blurdiff --help`, run once for real on a tiny LMDB: each takes what the one before it made."""

import json
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
import yaml

import tiny
from pictures import encode, key, noise, write_lmdb

sys.path.append(str(Path(__file__).parents[1] / "data"))
from archive_server import ArchiveServer, make_zip

from blurdiff.cli import STAGES, main
from blurdiff.config.runs import check_config, resolve_runs
from blurdiff.config.settings import with_keys
from blurdiff.network import conversion
from blurdiff.network.unet import UNet

NETWORK = tiny.NETWORK | {"attention_resolutions": [8]}
CONFIG = tiny.tiny_config(
    results=".",
    store="store",
    datasets={"photos": {"lmdb": "photos_lmdb"}},
    process={"n_timesteps": 4, "snr_tilt": 0.5},
    network=NETWORK,
    runs=[{"dataset": "photos", "f_type": "quartic", "f_N": 0.5}],
)
DATA = "--images data/photos/images.npy --manifest data/photos/manifest.json"
EFFICIENTNET = "--network efficientnet-lite0"
EVALUATED = "--evaluations fid.json --samples samples.npz --images data/photos/images.npy --studies study.csv"
TABLE = "--output {0}.csv --markdown {0}.table.md --figure {0}.png --pdf {0}.pdf --caption {0}.md"
FIGURE = "--output {0}.png --pdf {0}.pdf --caption {0}.md"
# (command line, files that it must make), in an order in which each finds its inputs; the first word is the command.
CASES = [
    ("init mine", "mine/Snakefile mine/config/config.yaml"),
    ("settings --config config.yaml --run photos_quartic", ""),
    ("synthesize --kind bedroom --n-images 2 --workers 1 --output rooms_lmdb", "rooms_lmdb/data.mdb"),
    ("download --url {url} --output photos_lmdb", "photos_lmdb/data.mdb"),
    # With the LMDB there and nothing made of it yet, and at the end with everything made.
    ("plan --configfile config.yaml --calibration-seconds 0.01", ""),
    ("preprocess --lmdb photos_lmdb --resolution 8 --workers 1 --part 0 --parts 2 --output 0.npy --manifest 0.json",
     "0.npy 0.json"),
    ("preprocess --lmdb photos_lmdb --resolution 8 --workers 1 --part 1 --parts 2 --output 1.npy --manifest 1.json",
     "1.npy 1.json"),
    ("join-parts --parts 0.npy 1.npy --manifests 0.json 1.json --output data/photos/images.npy"
     " --manifest data/photos/manifest.json", "data/photos/images.npy data/photos/manifest.json"),
    (f"train --settings run.json {DATA} --store store --output model.safetensors --history history.csv",
     "model.safetensors history.csv"),
    ("draw model.safetensors --n 3 --output grid.png --folder pictures --npz images.npz --animation way.webp",
     "grid.png pictures/002.png images.npz way.webp"),
    ("sample --model model.safetensors --shard 0 --output shard.npz", "shard.npz"),
    ("gather --shards shard.npz --n-samples 2 --output samples.npz --strips strips.npz", "samples.npz strips.npz"),
    (f"reference {DATA} {EFFICIENTNET} --n-samples 2 --output reference.npz", "reference.npz"),
    (f"evaluate --samples samples.npz --reference reference.npz --settings run.json {EFFICIENTNET}"
     " --output fid.json --statistics statistics.npz --features features.npy",
     "fid.json statistics.npz features.npy"),
    ("sampler-study --model model.safetensors --reference reference.npz --samplers {samplers}"
     f" --n-steps 2 --n-samples 2 {EFFICIENTNET} --output study.csv --drawn drawn.npz", "study.csv drawn.npz"),
    (f"table --name samplers --studies study.csv --settings runs.json {TABLE.format('samplers')}",
     "samplers.csv samplers.table.md samplers.png samplers.pdf samplers.md"),
    (f"table --name failures --settings run.json {EVALUATED} --drawn drawn.npz {TABLE.format('failures')}",
     "failures.csv failures.table.md failures.png failures.pdf failures.md"),
    (f"table --name tilt --settings run.json {EVALUATED} {TABLE.format('tilt')}",
     "tilt.csv tilt.table.md tilt.png tilt.pdf tilt.md"),
    ("table --evaluations fid.json --output table.csv --markdown table.md", "table.csv table.md"),
    (f"figure --name figure1 --strips strips.npz --settings runs.json {FIGURE.format('figure1')}",
     "figure1.png figure1.pdf figure1.md"),
    ("figure --name animation --strips strips.npz --settings runs.json --output animation.webp --caption animation.md",
     "animation.webp animation.md"),
    ("page --config config.yaml --output report.html", "report.html"),
    ("audit --resolution 16 --n-timesteps 100 --output operator.png operator.pdf", "operator.png operator.pdf"),
    ("benchmark --quick --stages process --output benchmark.csv", "benchmark.csv"),
    ("import-checkpoint --checkpoint theirs.ckpt --settings theirs.json --output theirs.safetensors",
     "theirs.safetensors"),
    ("draw theirs.safetensors --n 1 --output theirs.png", "theirs.png"),
    ("export-diffusers --model theirs.safetensors --output diffusers",
     "diffusers/config.json diffusers/diffusion_pytorch_model.safetensors"),
    ("plan --configfile config.yaml --calibration-seconds 0.01", ""),
    ("store list --store store --config config.yaml --verify", ""),
    ("store prune --store store --config config.yaml --checkpoints --yes", ""),
]  # fmt: skip


def make_lmdb(folder: Path) -> bytes:
    """A dozen images of 16 pixels as an LSUN-format LMDB; returns its data.mdb."""
    rng = np.random.default_rng(0)
    write_lmdb(folder, {key(k): encode(noise(rng, 16, 16)) for k in range(12)})
    return (folder / "data.mdb").read_bytes()


def save_their_checkpoint(path: Path) -> None:
    """A network of random weights under guided-diffusion's names."""
    torch.manual_seed(0)
    network = UNet(8, **NETWORK)
    state = network.state_dict()
    torch.save({their: state[own] for own, their, _ in conversion.tensor_names(network)}, path)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """The folder of the run, with what no command makes; and what stands for {url} and {samplers}."""
    folder = tmp_path_factory.mktemp("every")
    with ArchiveServer(make_zip({"photos_lmdb/data.mdb": make_lmdb(folder / "served")})) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        [settings] = resolve_runs(check_config(CONFIG))
        (folder / "run.json").write_text(json.dumps(settings.as_dict()))
        (folder / "runs.json").write_text(json.dumps([settings.as_dict()]))
        theirs = with_keys(settings, "process", snr_tilt=None)  # a checkpoint says nothing of the images
        (folder / "theirs.json").write_text(json.dumps(theirs.as_dict()))
        save_their_checkpoint(folder / "theirs.ckpt")
        yield folder, {"url": server.url, "samplers": json.dumps([{"sampler": "ddim"}])}
        server.shutdown()
        thread.join()


def test_every_command_has_a_case():
    assert {line.split()[0] for line, _ in CASES} == set(STAGES)


@pytest.mark.parametrize(("line", "made"), CASES, ids=[" ".join(line.split()[:2]) for line, _ in CASES])
def test_a_command_makes_what_the_next_one_needs(line, made, workplace, monkeypatch):
    folder, values = workplace
    monkeypatch.chdir(folder)
    assert main([word.format(**values) if word.startswith("{") else word for word in line.split()]) == 0
    for name in made.split():
        assert (folder / name).stat().st_size > 0
