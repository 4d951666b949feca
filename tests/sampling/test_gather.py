import io
import json

import numpy as np
import pytest

from blurdiff.cli import main


def make_shard(path, seed, n=4, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "arr_0": rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8),
        "strip_timesteps": np.array([10, 5, 0]),
        "strip_x": rng.standard_normal((3, 2, 8, 8, 3)).astype(np.float32),
        "strip_x0": rng.standard_normal((3, 2, 8, 8, 3)).astype(np.float32),
    }
    arrays.update(changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return arrays


def gather(tmp_path, names, n_samples):
    shards = [str(tmp_path / name) for name in names]
    made = tmp_path / "made"
    outputs = ["--output", str(made / "samples.npz"), "--strips", str(made / "strips.npz")]
    return main(["gather", "--shards", *shards, "--n-samples", str(n_samples), *outputs])


def test_shards_of_different_settings(tmp_path, capsys):
    for name, steps in (("0.npz", 4), ("1.npz", 5)):
        make_shard(
            tmp_path / name, steps, made_with=json.dumps({"process.n_timesteps": steps, "sampling.n_strip": steps})
        )
    line = refused(tmp_path, capsys, ["0.npz", "1.npz"], 8)
    assert "1.npz" in line and "process.n_timesteps 5" in line and "delete" in line
    assert gather(tmp_path, ["0.npz"], 4) == 0
    for name in ("samples", "strips"):
        assert "n_timesteps" in str(np.load(tmp_path / "made" / f"{name}.npz")["made_with"])


def refused(tmp_path, capsys, names, n_samples):
    """The one line of a refusal, and nothing written."""
    assert gather(tmp_path, names, n_samples) == 1
    assert not (tmp_path / "made").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("n_samples", [12, 10, 9, 1])
def test_samples_in_order_and_the_first_shards_strips(tmp_path, n_samples):
    shards = [make_shard(tmp_path / f"{k}.npz", k) for k in range(3)]
    assert gather(tmp_path, ["0.npz", "1.npz", "2.npz"], n_samples) == 0
    # As the evaluations of ADM (guided-diffusion) read it: one array arr_0, uint8 NHWC.
    with np.load(tmp_path / "made" / "samples.npz", allow_pickle=False) as file:
        assert file.files == ["arr_0"]
        samples = file["arr_0"]
    assert samples.dtype == np.uint8
    assert np.array_equal(samples, np.concatenate([shard["arr_0"] for shard in shards])[:n_samples])
    with np.load(tmp_path / "made" / "strips.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["timesteps", "x", "x0"]
        for name in file.files:
            assert np.array_equal(file[name], shards[0][f"strip_{name}"])


@pytest.mark.parametrize(("n_shards", "message"), [(2, "2 shards hold 8 samples, 9 are wanted"), (1, "1.npz")])
def test_too_few_samples_or_shards(tmp_path, capsys, n_shards, message):
    for k in range(n_shards):
        make_shard(tmp_path / f"{k}.npz", k)
    assert message in refused(tmp_path, capsys, ["0.npz", "1.npz"], 9)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "changes",
    [
        {"arr_0": np.zeros((4, 4, 4, 3), np.uint8)},
        {"arr_0": np.zeros((3, 8, 8, 3), np.uint8)},
        {"arr_0": np.zeros((4, 8, 8, 3), np.float32)},
        {"arr_0": np.zeros((4, 8, 8), np.uint8)},
        {"arr_0": np.zeros((), np.uint8)},
        {"arr_0": None},
        {"strip_x": None},
        {"arr_0": np.array([None] * 4)},
    ],
    ids=["resolution", "count", "type", "no colours", "scalar", "no images", "no strip", "objects"],
)
def test_shard_of_another_kind(tmp_path, capsys, which, changes):
    """Beside one good shard; whichever comes first, the line names one of the two."""
    make_shard(tmp_path / f"{which}.npz", 0, **changes)
    make_shard(tmp_path / f"{1 - which}.npz", 1)
    line = refused(tmp_path, capsys, ["0.npz", "1.npz"], 7)
    assert "0.npz" in line or "1.npz" in line


def test_one_bad_shard_alone(tmp_path, capsys):
    make_shard(tmp_path / "0.npz", 0, arr_0=np.zeros((8, 8, 8), np.uint8))
    assert "0.npz" in refused(tmp_path, capsys, ["0.npz"], 4)


def test_not_a_shard(tmp_path, capsys):
    np.save(tmp_path / "array.npy", np.zeros((4, 8, 8, 3), np.uint8))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    for name in ("array.npz", "text.npz", "empty.npz", "folder.npz"):
        assert name in refused(tmp_path, capsys, [name], 4)


def test_truncated_shard(tmp_path, capsys):
    make_shard(tmp_path / "0.npz", 0)
    content = (tmp_path / "0.npz").read_bytes()
    for length in [*range(0, len(content), len(content) // 20), len(content) - 1]:
        (tmp_path / "0.npz").write_bytes(content[:length])
        assert "delete it and run again" in refused(tmp_path, capsys, ["0.npz"], 4)


def test_flipped_bits_are_seen(tmp_path, capsys):
    """Wherever one byte differs, the shard is refused in one line, or what is read is what was written."""
    make_shard(tmp_path / "0.npz", 0)
    content = (tmp_path / "0.npz").read_bytes()
    assert gather(tmp_path, ["0.npz"], 4) == 0
    expected = {name: (tmp_path / "made" / name).read_bytes() for name in ("samples.npz", "strips.npz")}
    refusals = 0
    for position in np.random.default_rng(0).integers(0, len(content), 300):
        damaged = bytearray(content)
        damaged[position] ^= 0x40
        (tmp_path / "0.npz").write_bytes(damaged)
        if gather(tmp_path, ["0.npz"], 4) == 0:
            for name, value in expected.items():
                with np.load(tmp_path / "made" / name) as file, np.load(io.BytesIO(value)) as wanted:
                    assert all(np.array_equal(file[key], wanted[key]) for key in wanted.files)
        else:
            (line,) = capsys.readouterr().err.splitlines()
            assert "0.npz" in line
            refusals += 1
    assert refusals > 250
