"""A folder and a zip of pictures through Snakemake itself; what a change of a file below a folder makes anew."""

import json
import zipfile

import numpy as np
import yaml
from test_workflow import TINY

from pictures import encode, noise
from running import run_snakemake

IMAGES = ["results/data/pictures/images.npy", "results/data/zipped/images.npy"]
CONFIG = TINY | {
    "datasets": {"pictures": {"folder": "my pictures/", "crop": "center"}, "zipped": {"zip": "pictures.zip"}},
    "runs": [{"dataset": "pictures"}, {"dataset": "zipped"}],
    "figures": {},
}


def png(seed):
    return encode(noise(np.random.default_rng(seed), 20, 20))


def test_a_folder_and_a_zip(tmp_path):
    def snakemake(*options, status=0):
        return run_snakemake(
            tmp_path, "--configfile", "own.yaml", "--cores", "2", *options, "--", *IMAGES, status=status
        )

    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    missing = snakemake("--dry-run", status=1)
    assert "datasets.pictures.folder: my pictures is missing; give a folder" in missing
    assert "datasets.zipped.zip: pictures.zip is missing; give a zip" in missing
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("dataset.json", "{}")
        for n in range(3):
            path = tmp_path / "my pictures" / f"{n}" / f"{n}.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(png(n))
            archive.writestr(f"{n}/{n}.png", png(n))
    snakemake()
    folder, zipped = ((tmp_path / name).read_bytes() for name in IMAGES)
    assert folder == zipped  # the pictures are square, so that there is nothing to crop
    assert json.loads((tmp_path / IMAGES[0]).with_name("manifest.json").read_text())["crop"] == "center"
    (tmp_path / "my pictures" / ".cache").touch()
    assert "Nothing to be done" in snakemake("--dry-run")
    (tmp_path / "my pictures" / "1" / "1.png").write_bytes(png(9))
    assert "preprocess        1" in snakemake("--dry-run")
    snakemake()
    assert np.array_equal(np.load(tmp_path / IMAGES[0])[[0, 2]], np.load(tmp_path / IMAGES[1])[[0, 2]])
    assert (tmp_path / IMAGES[0]).read_bytes() != zipped
    assert "Nothing to be done" in snakemake("--dry-run")
