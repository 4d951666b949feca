"""Which models of a store the runs of a config need. Reads no tensor, so that it needs no torch."""

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from blurdiff.config.runs import is_forward_only, resolve_runs
from blurdiff.config.settings import with_keys
from blurdiff.errors import UserError
from blurdiff.runtime.files import read_json
from blurdiff.store import store
from blurdiff.store.inventory import StoredModel


@dataclass
class Need:
    """A run and seed of a config, as the store sees it. `unknown` names what its fingerprint would need in addition."""

    config: str
    run: str
    dataset: str
    label: str
    seed: int
    iterations: int
    value: dict
    unknown: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.run} seed {self.seed}"

    def fits(self, model: StoredModel) -> bool:
        """Whether the model is what the run would train; what is unknown may be anything."""
        if not self.unknown:
            return store.fingerprint(self.value) == model.fingerprint
        tables = [key.removeprefix("process.") for key in self.unknown if key.startswith("process.")]
        if any(model.value.get("process", {}).get(key) in ("blur", "heat", None) for key in tables):
            return False
        return _without(self.value, self.unknown) == _without(model.value, self.unknown)


def _without(value: dict, keys: tuple[str, ...]) -> dict:
    process = {key: item for key, item in value.get("process", {}).items() if f"process.{key}" not in keys}
    return {key: item for key, item in value.items() if key not in keys} | {"process": process}


def needs_of(config: dict, name: str) -> list[Need]:
    """What the trained runs of a complete config need of a store, in their order."""
    forward_only = {run["name"] for run in config["runs"] if is_forward_only(config, run)}
    digests = {dataset: images_digest(config, dataset) for dataset in config["datasets"]}
    needs = []
    for settings in resolve_runs(config):
        if settings["run"] in forward_only:
            continue
        digest = digests[settings["dataset"]]
        unknown = () if digest else ("images_sha256",)
        for field in dataclasses.fields(settings.process):
            usual, path = field.metadata.get("is_file_unless"), settings.process[field.name]
            if usual and path not in usual and not Path(path).is_file():
                settings = with_keys(settings, "process", **{field.name: usual[0]})
                unknown += (f"process.{field.name}",)
        value = store.fingerprinted(settings, digest or "")
        iterations = settings["training"]["iterations"]
        words = [settings[key] for key in ("run", "dataset", "label", "seed")]
        needs.append(Need(name, *words, iterations, value, unknown))
    return needs


@cache
def _first_key(kind: str, seed: int) -> bytes:
    """The key of a synthetic set's first image."""
    from blurdiff.data.scenes import draw_files

    return hashlib.sha1(draw_files(kind, seed, range(1))[0]).hexdigest().encode()


def images_digest(config: dict, dataset: str) -> str | None:
    """The SHA-256 of a data set's images, from their manifest; None when that is absent or not of this config.

    A manifest may have been written for an earlier state of the config. Where that can be seen the digest is unknown:
    better a model too many in the store than one too few.
    """
    part = config["datasets"][dataset]
    folder = Path(config["results"]) / "data"
    path = folder / dataset / "manifest.json"
    try:
        manifest = read_json(path)
    except UserError:
        return None
    source = part["lmdb"] or str(folder / f"{dataset}_lmdb")
    expected = {"resolution": config["resolution"], "max_images": part["max_images"]}
    if part["synthetic"]:
        expected["n_keys"] = part["n_images"]
    if not isinstance(manifest, dict) or any(manifest.get(key) != value for key, value in expected.items()):
        return None
    if os.path.normpath(str(manifest.get("source"))) != os.path.normpath(source):
        return None
    data = Path(source) / "data.mdb"
    if data.is_file() and data.stat().st_mtime > path.stat().st_mtime:
        return None
    if part["synthetic"] and not _is_drawn(Path(source), part):
        return None
    return manifest.get("sha256")


def _is_drawn(source: Path, part: dict) -> bool:
    """Whether a synthetic LMDB is that of the config's kind and seed: it holds the first image that these give."""
    import lmdb

    from blurdiff.data import lsun

    try:
        with lsun.open_lmdb(source) as environment, environment.begin() as transaction:
            return transaction.get(_first_key(part["synthetic"], part["seed"])) is not None
    except (UserError, lmdb.Error):
        return False
