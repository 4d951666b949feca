"""Files that are cut off or have a wrong byte: detected, named, and made again with the same content."""

import contextlib
import os
import time

import psutil
import pytest
from fault_helpers import (
    DATA,
    ITERATIONS,
    RUN,
    Stage,
    check_same,
    checkpoints,
    commands,
    flip_byte,
    halve,
    maps_lmdb,
    model_folder,
    remove,
    run_stage,
    run_well,
    shorten_training,
)

MODEL = f"{RUN}/model.safetensors"  # one file with the store's
# How the file is damaged, and which; the stage that reads it and must refuse; what its error says; the stages that make
# the file again, and what they say of it.
DAMAGED = {
    "images": (halve, f"{DATA}/images.npy", "train", "truncated? run the preprocess stage again", ["preprocess"], ""),
    "manifest": (halve, f"{DATA}/manifest.json", "train", "cannot read", ["preprocess"], ""),
    "model": (halve, MODEL, "sample", "delete it and run again", ["train"], "is damaged and made again"),
    "flipped": (flip_byte, MODEL, "sample", "", ["train"], "is damaged and made again"),
    "shard": (halve, f"{RUN}/shards/1.npz", "gather", "delete it and run again", ["sample 1"], ""),
    "samples": (halve, f"{RUN}/samples.npz", "evaluate", "sample the run again", ["gather"], ""),
    "evaluation": (halve, f"{RUN}/fid.json", "table", "", ["evaluate"], ""),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_file(finished, undisturbed, faults, what):
    damage, name, stage, words, makers, said = DAMAGED[what]
    if stage == "train":
        shorten_training(finished)  # a finished model needs no images
    faults.inject("a truncated file" if damage is halve else "a flipped byte in a model")
    damage(finished / name)
    error = run_stage(finished, commands()[stage][0]).error()
    assert name in error and words in error
    remove(finished / name)
    assert said in run_well(finished, *makers)
    run_well(finished, stage)
    check_same(finished, undisturbed)
    faults.settle()


def test_flipped_byte_in_a_checkpoint(finished, undisturbed, faults):
    folder = model_folder(finished)
    remove(*folder.glob("model-*"), *folder.glob("history-*"))
    before, newest = checkpoints(finished)
    faults.inject("a flipped byte in a checkpoint")
    flip_byte(checkpoints(finished)[newest])
    text = run_well(finished, "train")
    (warning,) = [line for line in text.splitlines() if line.startswith("warning: ")]
    assert f"checkpoint-{newest:08d}" in warning and "is damaged" in warning
    assert before < newest == ITERATIONS
    check_same(finished, undisturbed)
    faults.settle()


def test_lmdb_truncated_while_it_is_read(finished, undisturbed, faults):
    """Reading on kills whoever reads (SIGBUS, which no program can catch): a worker dies, the stage reports it."""
    remove(finished / DATA)
    data = finished / "data" / "photos_lmdb" / "data.mdb"
    content = data.read_bytes()
    for _ in range(5):  # on a busy machine, all may be read before it is cut off
        stage = Stage(finished, commands()["preprocess"][0])
        workers = wait_for_readers(stage.process.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            for worker in workers:
                worker.suspend()
        os.truncate(data, 8192)
        with contextlib.suppress(psutil.NoSuchProcess):
            for worker in workers:
                worker.resume()
        ended = stage.end()
        if ended.status:
            break
        remove(finished / DATA)
        data.write_bytes(content)
    faults.inject("an LMDB truncated while it is read")
    error = ended.error()
    assert "photos_lmdb" in error and "truncated" in error
    assert not (finished / DATA / "images.npy").exists() and not (finished / DATA / "manifest.json").exists()
    data.write_bytes(content)
    run_well(finished, "preprocess")
    check_same(finished, undisturbed)
    faults.settle()


def wait_for_readers(pid: int) -> list[psutil.Process]:
    """The workers of the process, as soon as one of them reads the LMDB."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        workers = psutil.Process(pid).children()
        if any(maps_lmdb(worker.pid) for worker in workers):
            return workers
        time.sleep(0.002)
    raise TimeoutError
