"""A data set that several jobs preprocess, through Snakemake itself."""

import yaml
from test_workflow import TINY, write_lmdb

from running import run_snakemake

IMAGES, MANIFEST = "results/data/photos/images.npy", "results/data/photos/manifest.json"


def snakemake(folder, n_parts, *arguments):
    config = ["--config", f'datasets={{"photos": {{"parts": {n_parts}}}}}']
    return run_snakemake(folder, "--configfile", "tiny.yaml", "--cores", "2", *arguments, *config, "--", IMAGES)


def test_parts_are_made_joined_and_removed(tmp_path):
    write_lmdb(tmp_path / "data" / "photos_lmdb", 8)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    one = snakemake(tmp_path, 1)
    assert one.count("rule preprocess:") == 1 and "1 of 1 steps" in one  # one job, no part
    expected = [(tmp_path / name).read_bytes() for name in (IMAGES, MANIFEST)]
    for name in (IMAGES, MANIFEST):
        (tmp_path / name).unlink()
    output = snakemake(tmp_path, 2)
    assert output.count("rule preprocess_part:") == 2 and output.count("rule join_parts:") == 1
    assert [(tmp_path / name).read_bytes() for name in (IMAGES, MANIFEST)] == expected
    assert sorted(path.name for path in (tmp_path / IMAGES).parent.iterdir()) == ["images.npy", "manifest.json"]
    assert "Nothing to be done" in snakemake(tmp_path, 2, "--dry-run")
