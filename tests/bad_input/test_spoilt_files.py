"""Files that a stage reads, spoilt: cut short, with a flipped byte, or with code for a careless program to run.

Each is noticed in one line, nothing is made of it, and no code runs. (One file: importing what draws figures takes
seconds, and the files of a test suite may go to a process each.)
"""

import hashlib
import io
import json
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from stages_of_a_run import CONFIG, STAGES

from blurdiff import cli
from blurdiff.config import runs as config
from blurdiff.evaluation import features
from linear_features import linear_features
from pictures import write_images

# Each file with the stages that read it.
READ = [
    ("images.npy", "train"), ("images.npy", "reference"), ("images.npy", "figure samples"),
    ("manifest.json", "train"), ("manifest.json", "reference"), ("manifest.json", "figure samples"),
    ("run.json", "train"), ("run.json", "sample"), ("run.json", "evaluate"), ("runs.json", "figure figure1"),
    ("model.safetensors", "sample"),
    ("0.npz", "gather"), ("1.npz", "gather"),
    ("samples.npz", "evaluate"), ("samples.npz", "figure samples"),
    ("strips.npz", "figure figure1"),
    ("reference.npz", "evaluate"),
    ("fid.json", "table"),
    ("history.csv", "figure training"),
]  # fmt: skip


@pytest.fixture(scope="module")
def quick_features():
    """A linear map in place of the feature network, whose own bad input is tested with it."""
    real = features.load_network
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "load_network", lambda name, *_, **__: linear_features(8, name=name))
        yield real


@pytest.fixture(scope="module")
def whole_run(quick_features, tmp_path_factory) -> Path:
    """The folder of a run with every file whole; tests take copies."""
    folder = tmp_path_factory.mktemp("whole")
    write_images(folder, np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), synthetic=True)
    [settings] = config.resolve_runs(config.check_config(CONFIG))
    (folder / "run.json").write_text(json.dumps(settings.as_dict()))
    (folder / "runs.json").write_text(json.dumps([settings.as_dict()]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command, made in STAGES.values():
            assert cli.main(command) == 0
            assert all((folder / name).exists() for name in made)
    return folder


@pytest.fixture
def copied(whole_run, tmp_path, monkeypatch) -> Path:
    """The working folder: a copy of the whole run, without the store of models."""
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder, ignore=shutil.ignore_patterns("store"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def stage(copied, capsys):
    """Run a stage of STAGES after removing what it makes; gives its exit status.

    An error is one line, the last on stderr, without a traceback, and nothing is made, no temporary file either.
    `stage.error` is that line.
    """

    def run(name: str) -> int:
        command, made = STAGES[name]
        for path in made:
            (copied / path).unlink()
        before = {path.name for path in copied.iterdir()} - {"store"}
        capsys.readouterr()
        status = cli.main(command)
        error = capsys.readouterr().err
        after = {path.name for path in copied.iterdir()} - {"store"}
        if status == 0:
            assert after == before | set(made)
            return 0
        run.error = error.splitlines()[-1]
        assert status == 1
        assert run.error.startswith("error: ") and error.count("error: ") == 1 and "Traceback" not in error
        assert after == before
        return 1

    run.error = ""
    return run


class Trap:
    """Unpickling one makes the folder `sprung` in the working folder."""

    def __reduce__(self):
        return (os.mkdir, ("sprung",))


@pytest.fixture(autouse=True)
def never_sprung(copied):
    """The trap works, and no test has sprung it."""
    pickle.loads(pickle.dumps(Trap()))
    (copied / "sprung").rmdir()
    yield
    assert not (copied / "sprung").exists()


def same_or_refused(stage, whole_run, copied, file: str, name: str) -> bool:
    """Whether the stage refuses a spoilt file; if it does not, the damage must have been harmless."""
    if stage(name) == 1:
        assert file in stage.error or file.split(".")[0] in stage.error, stage.error
        return True
    for made in STAGES[name][1]:
        assert (copied / made).read_bytes() == (whole_run / made).read_bytes(), f"{made} is of a spoilt {file}"
    return False


@pytest.mark.parametrize("part", ["0", "1 byte", "10 %", "50 %", "90 %", "all but 2", "all but 1"])
@pytest.mark.parametrize(("file", "name"), READ)
def test_a_truncated_file_is_noticed(stage, whole_run, copied, file, name, part):
    content = (whole_run / file).read_bytes()
    n = len(content)
    size = {"0": 0, "1 byte": 1, "10 %": n // 10, "50 %": n // 2, "90 %": n * 9 // 10, "all but 2": n - 2,
            "all but 1": n - 1}[part]  # fmt: skip
    (copied / file).unlink()  # it may be a link to the one in the store
    (copied / file).write_bytes(content[:size])
    refused = same_or_refused(stage, whole_run, copied, file, name)
    # The last byte of a JSON that we write is the end of its line.
    assert refused or (part == "all but 1" and content.endswith(b"\n"))


def test_a_history_cut_between_two_rows_is_noticed(stage, whole_run, copied):
    rows = (whole_run / "history.csv").read_text().splitlines(keepends=True)
    for n_rows in range(1, len(rows)):
        (copied / "history.csv").unlink()
        (copied / "history.csv").write_text("".join(rows[:n_rows]))
        assert stage("figure training") == 1
        assert "history.csv" in stage.error
        for made in STAGES["figure training"][1]:
            (copied / made).touch()


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file, name in READ if file.endswith(".npz") and file != "1.npz"]
)
def test_a_flipped_byte_in_an_archive_is_noticed_or_harmless(stage, whole_run, copied, file, name):
    """Its checksums see to the arrays; what describes them is read before."""
    content, rng = (whole_run / file).read_bytes(), random.Random(0)
    for _ in range(12):
        spoilt = bytearray(content)
        spoilt[rng.choice([rng.randrange(len(content)), rng.randrange(250)])] ^= rng.randrange(1, 256)
        (copied / file).unlink()
        (copied / file).write_bytes(bytes(spoilt))
        same_or_refused(stage, whole_run, copied, file, name)
        for made in STAGES[name][1]:
            (copied / made).touch()


# --- code ---


def saved(save) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def traps_in_npz(path) -> bytes:
    """The archive with every array replaced by one of objects."""
    with np.load(path) as file:
        shapes = {name: file[name].shape for name in file.files}
    arrays = {name: np.full(shape if np.prod(shape) < 100 else (1,), Trap()) for name, shape in shapes.items()}
    return saved(lambda buffer: np.savez(buffer, **arrays))


PICKLED = pickle.dumps(Trap())
OBJECTS = saved(lambda buffer: np.save(buffer, np.array([Trap()], dtype=object)))
TORCH = saved(lambda buffer: torch.save({"state_dict": Trap()}, buffer))
TORCH_LEGACY = saved(lambda buffer: torch.save(Trap(), buffer, _use_new_zipfile_serialization=False))
KINDS = ["pickle", "torch", "torch legacy"]


@pytest.mark.parametrize("content", ["pickle", "objects", "objects in an archive", "torch", "torch legacy"])
@pytest.mark.parametrize(("file", "name"), READ)
def test_no_stage_unpickles_what_it_reads(stage, whole_run, copied, file, name, content):
    if content == "objects in an archive":
        spoilt = traps_in_npz(whole_run / (file if file.endswith(".npz") else "0.npz"))
    else:
        spoilt = {"pickle": PICKLED, "objects": OBJECTS, "torch": TORCH, "torch legacy": TORCH_LEGACY}[content]
    (copied / file).unlink()
    (copied / file).write_bytes(spoilt)
    assert stage(name) == 1
    assert file in stage.error


@pytest.mark.parametrize("content", [PICKLED, TORCH, TORCH_LEGACY, b"no checkpoint at all"], ids=[*KINDS, "garbage"])
def test_a_checkpoint_with_code_in_the_store_is_refused(stage, copied, whole_run, content):
    """Its name has the right digest: whoever wrote it knew how."""
    shutil.copytree(whole_run / "store", copied / "store")
    [folder] = (copied / "store" / "models").iterdir()
    for path in [*folder.glob("checkpoint-*"), *folder.glob("model-*")]:
        path.unlink()
    planted = folder / f"checkpoint-00000002-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    planted.write_bytes(content)
    assert stage("train") == 1
    assert planted.name in stage.error
    assert planted.read_bytes() == content and not list(folder.glob("model-*"))


@pytest.mark.parametrize("content", [PICKLED, TORCH, TORCH_LEGACY], ids=KINDS)
def test_an_imported_checkpoint_with_code_is_refused(copied, capsys, content):
    (copied / "theirs.ckpt").write_bytes(content)
    assert cli.main(["import-checkpoint", "--checkpoint", "theirs.ckpt", "--output", "imported.safetensors"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: theirs.ckpt ") and error.count("\n") == 1
    assert not (copied / "imported.safetensors").exists()


@pytest.mark.parametrize("content", [PICKLED, TORCH, TORCH_LEGACY], ids=KINDS)
def test_inception_weights_with_code_are_refused(copied, capsys, monkeypatch, quick_features, content):
    (copied / "weights.pth").write_bytes(content)
    monkeypatch.setattr(features, "load_network", quick_features)
    for name in ("evaluate", "reference"):
        command, made = STAGES[name]
        for path in made:
            (copied / path).unlink()
        command = ["inception" if word == "efficientnet-lite0" else word for word in command]
        if name == "evaluate":  # its reference must be of the same network
            with np.load(copied / "reference.npz") as file:
                np.savez(copied / "inception.npz", **(dict(file) | {"network": "inception"}))
            command = ["inception.npz" if word == "reference.npz" else word for word in command]
        assert cli.main([*command, "--weights", "weights.pth"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: weights.pth has") and error.count("\n") == 1
        assert not any((copied / path).exists() for path in made)


def test_settings_with_code_are_refused(copied, capsys):
    (copied / "run.yaml").write_text("run: !!python/object/apply:os.mkdir [sprung]\n")
    command = ["run.yaml" if word == "run.json" else word for word in STAGES["sample"][0]]
    assert cli.main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: run.yaml") and error.count("\n") == 1
