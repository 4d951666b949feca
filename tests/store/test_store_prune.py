"""`blurdiff store prune`, on stores that real trainings have filled."""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from blurdiff.config.runs import check_config, load_config
from blurdiff.data.scenes import synthesize
from blurdiff.errors import UserError
from blurdiff.runtime.locks import held
from blurdiff.store import listing, store


def test_prune(train_config, said, workplace, write_config, store_config):
    none, quartic = train_config()
    write_config("none.yaml", runs=store_config["runs"][:1])
    before = sorted(workplace.rglob("*"))
    text = said("prune", "--config", "none.yaml")
    assert "store: 2 models; none.yaml needs 1 of them" in text
    assert quartic.name in text
    assert none.name not in text
    assert "nothing removed; --yes removes what is shown" in text
    assert sorted(workplace.rglob("*")) == before
    # Model and history stay as hard links in results: their bytes are not freed.
    size = sum(path.stat().st_size for path in quartic.iterdir())
    linked = sum(path.stat().st_size for path in quartic.iterdir() if path.name.startswith(("model", "history")))
    freed = f"{size / 1000:.3g} kB in all; removing them frees {(size - linked) / 1000:.3g} kB"
    assert f"{freed} ({linked / 1000:.3g} kB have other hard links" in text
    assert f"removed {quartic.relative_to(workplace)}" in said("prune", "--config", "none.yaml", "--yes")
    assert os.listdir("store/models") == [none.name]
    assert (workplace / "results" / "noise_quartic" / "model.safetensors").stat().st_nlink == 1
    assert "nothing to remove" in said("prune", "--config", "none.yaml", "config.yaml", "--yes")
    assert os.listdir("store/models") == [none.name]


def test_prune_asks_on_a_terminal(train_config, said, monkeypatch, write_config):
    train_config()
    write_config("other.yaml", seeds=[5])
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(getattr(sys, stream), "isatty", lambda: True)
    for answer, left in (("", 2), ("n", 2), ("y", 0)):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        said("prune", "--config", "other.yaml")
        assert len(os.listdir("store/models")) == left


def test_prune_of_a_store_that_configs_do_not_have(train_config, said, write_config):
    train_config()
    write_config("other.yaml", store="elsewhere")
    text = said("prune", "--config", "other.yaml", "--store", "store", "--yes")
    assert "note: other.yaml has another store, elsewhere; what it needs is looked for in store" in text
    assert len(os.listdir("store/models")) == 2


@pytest.mark.parametrize(
    "change",
    [None, {"resolution": 16}, {"max_images": 5}, {"source": "data/others_lmdb"}],
    ids=["absent", "resolution", "max_images", "source"],
)
def test_unknown_images_keep_what_is_otherwise_the_same(
    train_config, said, change, write_config, write_manifest, store_config
):
    none, quartic = train_config()
    if change is None:
        shutil.rmtree("results/data")
    else:
        write_manifest(sha256="0" * 64, **change)
    write_config("none.yaml", runs=store_config["runs"][:1])
    text = said("prune", "--config", "none.yaml", "--yes")
    assert "(?) noise_none seed 3: the images unknown (no manifest of noise that fits none.yaml)" in text
    assert os.listdir("store/models") == [none.name]
    assert "noise_none seed 3 (?)" in said("list", "--config", "none.yaml")


def test_known_other_images_need_other_models(train_config, said, write_manifest):
    train_config()
    write_manifest(sha256="0" * 64)
    said("prune", "--config", "config.yaml", "--yes")
    assert os.listdir("store/models") == []


def test_younger_lmdb_makes_the_images_unknown(train_config):
    config = load_config("config.yaml")
    assert listing.images_digest(config, "noise")
    os.makedirs("data/noise_lmdb")
    with open("data/noise_lmdb/data.mdb", "wb"):
        pass
    os.utime("data/noise_lmdb/data.mdb", (0, time.time() + 100))
    assert listing.images_digest(config, "noise") is None


def test_images_of_a_folder_are_known_until_a_file_below_it_changes(workplace, images, write_manifest, store_config):
    pictures = workplace / "pictures" / "below"
    pictures.mkdir(parents=True)
    for n in range(10):
        (pictures / f"{n}.png").touch()
    write_manifest(source="pictures")
    checked = check_config({**store_config, "datasets": {"noise": {"folder": "pictures/"}}})
    assert listing.images_digest(checked, "noise") == json.loads((images / "manifest.json").read_text())["sha256"]
    cropped = check_config({**store_config, "datasets": {"noise": {"folder": "pictures", "crop": "center"}}})
    assert listing.images_digest(cropped, "noise") is None
    os.utime(pictures / "3.png", (0, time.time() + 100))
    assert listing.images_digest(checked, "noise") is None
    (pictures / "3.png").unlink()
    assert listing.images_digest(checked, "noise") is None
    shutil.rmtree(pictures)
    assert listing.images_digest(checked, "noise") is None


def test_synthetic_images_are_known_by_what_was_drawn(workplace, images, write_manifest, store_config):
    """The manifest does not tell the seed, but a file beside the LMDB does."""
    lmdb = Path("results/data/noise_lmdb")
    synthesize("church", lmdb, 10, 7, workers=1)
    write_manifest(source=str(lmdb))

    def digest(**changes):
        dataset = {"synthetic": "church", "n_images": 10, "seed": 7, **changes}
        return listing.images_digest(check_config({**store_config, "datasets": {"noise": dataset}}), "noise")

    assert digest() == json.loads((images / "manifest.json").read_text())["sha256"]
    assert digest(seed=8) is digest(synthetic="bedroom") is digest(n_images=11) is None
    (lmdb / "scenes.json").unlink()  # as earlier versions drew
    assert digest() is None
    synthesize("church", lmdb, 10, 7, workers=1)
    write_manifest(source=str(lmdb))
    assert digest()
    shutil.rmtree(lmdb)
    assert digest() is None


def test_tables_count_by_their_content(train_config, said, write_config, store_config):
    def table(values):
        with open("f.csv", "w", encoding="utf-8") as file:
            file.write("i,f\n" + "".join(f"{i},{values[i > 10]}\n" for i in range(21)))

    write_config(
        runs=[{"dataset": "noise", "f_type": "table", "f_N": 0.1, "f_table": "f.csv"}, store_config["runs"][1]]
    )
    table((0, 0.1))
    first, quartic = train_config()
    table((0, 0.2))
    second, _ = train_config()
    os.remove("f.csv")
    text = said("prune", "--config", "config.yaml", "--yes")
    assert "(?) noise_table_f_table-f.csv seed 3: process.f_table unknown; every model that is otherwise" in text
    assert len(os.listdir("store/models")) == 3
    table((0, 0.2))
    said("prune", "--config", "config.yaml", "--yes")
    assert sorted(os.listdir("store/models")) == sorted([second.name, quartic.name])
    digest = store.sha256_file("f.csv")
    assert f"f_table {digest[:12]}" in said("list", "--store", "store")


def test_checkpoints_of_finished_models(train_config, said, write_config, store_config):
    none, quartic = train_config()
    write_config("longer.yaml", runs=[store_config["runs"][0]], training={**store_config["training"], "iterations": 5})
    text = said("prune", "--config", "config.yaml", "longer.yaml", "--yes", "--checkpoints")
    assert f"removed the checkpoints of {quartic.name}" in text
    assert not list(quartic.glob("checkpoint-*"))
    assert len(list(none.glob("checkpoint-*"))) == 2  # longer.yaml goes on from them
    assert len(list(quartic.glob("model-*"))) == 1


def test_interrupted_prune(train_config, said, monkeypatch, write_config):
    """Whatever stops the deletion, the store holds whole models, and the next prune finishes it."""
    train_config()
    write_config("other.yaml", seeds=[5])

    def interrupted(path):
        os.remove(next(iter(path.glob("model-*"))))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        assert "interrupted; the same command" in said("prune", "--config", "other.yaml", "--yes", status=130)
    left, whole = sorted(os.listdir("store/models"))
    assert left.startswith(listing.REMOVING)
    text = said("list", "--store", "store", "--verify")
    assert "store: 1 model, " in text
    assert f"left by an interrupted prune: store/models/{left}" in text
    assert "the next prune removes it" in text
    # The model can be trained again at once.
    train_config()
    assert {name for name in os.listdir("store/models") if name != left} >= {whole}
    said("prune", "--config", "config.yaml", "--yes")
    assert len(os.listdir("store/models")) == 2


def test_trainer_that_waited_for_a_model_that_was_pruned(train_config):
    """A lock on a deleted file keeps nobody out: who waited for it must not go on."""
    folder, _ = train_config()
    errors = []

    def wait():
        try:
            with store.locked(folder):
                errors.append("entered")
        except UserError as error:
            errors.append(str(error))

    with held(folder) as mine:
        assert mine
        with held(folder) as again:
            assert not again
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        shutil.rmtree(folder)
    thread.join()
    assert errors == [f"{folder} was removed from the store meanwhile (blurdiff store prune); run again"]
