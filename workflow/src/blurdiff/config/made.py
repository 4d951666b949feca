"""What a file was made with: the settings that decide it, which it carries, compared with those of the config.

Snakemake notices a change of the config by its own records, in a folder (.snakemake) that people delete.
"""

import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from blurdiff.config.keys import digests_of
from blurdiff.config.settings import SECTIONS, Settings
from blurdiff.errors import UserError

MODEL = ("process", "network", "training")  # sections that decide a model
SAMPLES = (*MODEL, "sampling")
STRIPS = ("sampling.n_strip", "sampling.n_snapshots", "sampling.strip_x0")  # decide the first shard alone
TABLES = ("process.f_table", "process.power")
MAKE_ANEW = "put the config back, or delete this file and run again"


def deciding(settings: Mapping, *sections: str) -> dict[str, object]:
    """{"seed": …, "process.f_type": …}: seed, resolution and the sections' keys that say what is made, not how.

    Of typed settings, tables count by the SHA-256 of what is in them.
    """
    found = {key: settings[key] for key in ("seed", "resolution") if key in settings}
    for name in sections:
        makes = [field.name for field in dataclasses.fields(SECTIONS[name]) if not field.metadata["how"]]
        found |= {f"{name}.{key}": settings[name][key] for key in makes if key in settings.get(name, {})}
    found.pop("sampling.n_samples", None)  # more of them are more shards
    if isinstance(settings, Settings) and "process" in sections:
        found |= {f"process.{key}": digest for key, digest in digests_of(settings.process).items()}
    return found


def check_made(
    path: str | os.PathLike, made: Mapping, settings: Mapping, sections: tuple[str, ...], *without: str
) -> None:
    """Raise UserError where a file was `made` (by `deciding`) with something else than these sections of `settings`."""
    if made:
        compare(path, made, deciding(settings, *sections), *without)


def compare(path: str | os.PathLike, made: Mapping, settings: Mapping, *without: str, remedy: str = MAKE_ANEW) -> None:
    """Raise UserError where two results of `deciding` differ, but for the keys `without`; `remedy` ends its line."""
    if found := difference(path, made, settings, *without):
        raise UserError(f"{found}; {remedy}")


def difference(path: str | os.PathLike, made: Mapping, settings: Mapping, *without: str) -> str:
    """The first difference in words, or nothing.

    What only one of them has is not compared: files of other programs and of earlier versions carry less.
    """
    for key in sorted(made.keys() & settings.keys() - set(without)):
        if made[key] != settings[key]:
            return f"{path} was made with {key} {made[key]}, the settings have {settings[key]}"
    return ""


def settings_in(path: str | os.PathLike) -> dict:
    """The settings that a file of a name in CARRIERS carries; {} when it is none, or silent."""
    try:
        return CARRIERS[Path(path).name](path)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return {}


def _of_model(path: str | os.PathLike) -> dict:
    """But for its TABLES, which may have been moved."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, 1 << 26)))
    trained = json.loads(header["__metadata__"]["settings"])
    return {key: value for key, value in deciding(trained, *MODEL).items() if key not in TABLES}


def _of_evaluation(path: str | os.PathLike) -> dict:
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    made_with = {key: value for key, value in found["run"].get("made_with", {}).items() if key not in STRIPS}
    return made_with | {"sampling.n_samples": found["n_samples"], "evaluation.network": found["network"]}


def _of_images(path: str | os.PathLike) -> dict:
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    return {key: found[key] for key in ("source", "resolution", "max_images", "crop") if key in found}


def _of_scenes(path: str | os.PathLike) -> dict:
    return dict(json.loads(Path(path).with_name(SCENES).read_text(encoding="utf-8")))


def _of_study(path: str | os.PathLike) -> dict:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return studied(rows, [int(row["n_steps"]) for row in rows], int(rows[0]["n_samples"]))


def studied(samplers: Iterable[Mapping], n_steps: Iterable[int], n_samples: int) -> dict[str, object]:
    """What decides a study of samplers, beside its model; `samplers` have sampler, grid, eta and
    noise_free_steps."""
    keys = ("sampler", "grid", "eta", "noise_free_steps")
    names = [" ".join(str(each[key]).removesuffix(".0") for key in keys) for each in samplers]
    once = {"samplers": list(dict.fromkeys(names)), "n_steps": list(dict.fromkeys(n_steps)), "n_samples": n_samples}
    return {f"sampler_study.{key}": value for key, value in once.items()}


SCENES = "scenes.json"  # beside a data.mdb that was drawn: what was drawn
CARRIERS = {
    "model.safetensors": _of_model,
    "fid.json": _of_evaluation,
    "manifest.json": _of_images,
    "data.mdb": _of_scenes,
    "samplers.csv": _of_study,
}


def check_model_beside(path: str | os.PathLike, settings: Settings) -> None:
    """Raise UserError when the model in the folder of `path` was trained with other settings."""
    model = Path(path).with_name("model.safetensors")
    check_made(model, settings_in(model), settings, MODEL)
