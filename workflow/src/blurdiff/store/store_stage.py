"""Look at the store of trained models, and remove from it what no config needs.

`list` shows every model: what it is, how far it is trained, its size and state. `prune` shows what none of the given
configs needs, and removes it when told to. A model is needed by a run with the same fingerprint: the same images,
process, network, training and seed. While a data set's manifest (results/data/NAME/manifest.json) is absent or older
than the config, its images are unknown, and every model that is otherwise the same counts as needed.
"""

import argparse
import contextlib
import os
import shutil
import sys
from pathlib import Path

from blurdiff.config.schema import config_schema
from blurdiff.errors import UserError
from blurdiff.runtime import text
from blurdiff.runtime.files import sync
from blurdiff.store import inventory
from blurdiff.store.inventory import Contents, StoredModel
from blurdiff.store.needs import Need

RIGHT = "seed,pixels,parameters,iterations,checkpoint,size"


def store_path(given: str | None, configs: dict[str, dict]) -> Path:
    """The store to look at; UserError when configs name several."""
    if given:
        return Path(given)
    stores = {config["store"] for config in configs.values()} or {config_schema()["properties"]["store"]["default"]}
    if len(stores) > 1:
        raise UserError(f"the configs have several stores ({', '.join(sorted(stores))}); choose one by --store")
    return Path(stores.pop())


def fitting(model: StoredModel, needs: list[Need]) -> list[Need]:
    """The runs that need the model."""
    return [need for need in needs if need.fits(model)]


def absent(contents: Contents, needs: list[Need]) -> list[Need]:
    """The runs that no model of the store fits."""
    return [need for need in needs if not any(need.fits(model) for model in contents.models)]


def table_of(models: list[StoredModel], needs: list[Need] | None) -> str:
    """One line a model, below a line with what all have in common; with `needs` also which runs need it."""
    common, texts = inventory.describe(models)
    rows = [["fingerprint", "data set", "what", *RIGHT.split(","), "state"] + ["needed by"] * (needs is not None)]
    for model, what in zip(models, texts, strict=True):
        users = fitting(model, needs or [])
        label = model.label or next((need.label for need in users if not need.unknown), None)
        digest = str(model.value.get("images_sha256"))[:8]
        state = model.state + (f"; also holds {', '.join(model.unknown)}" if model.unknown else "")
        row = [model.fingerprint, label or f"images {digest}…", what, model.value.get("seed"),
               model.value.get("resolution"), f"{model.parameters:,}" if model.parameters else "-",
               ", ".join(map(str, model.trained)) or "-", max(model.checkpoints, default="-"), text.size(model.size),
               state]  # fmt: skip
        if needs is not None:
            row.append(", ".join(dict.fromkeys(need.name + " (?)" * bool(need.unknown) for need in users)) or "none")
        rows.append(row)
    above = ", ".join(f"{key} {inventory.show(value)}" for key, value in common.items())
    return (f"in all: {above}\n" if above else "") + text.table(rows, RIGHT)


def print_list(contents: Contents, needs: list[Need]) -> None:
    """The store, for people."""
    models = contents.models
    total = sum(model.size for model in models)
    print(f"{contents.path}: {count(len(models), 'model')}, {text.size(total)}")
    if models:
        print(table_of(models, needs or None))
    for need in absent(contents, needs):
        print(f"not in the store: {need.name} of {need.config} ({need.iterations:,} iterations)")
    print_unknown_images(contents, needs)
    for path, why in contents.unknown:
        print(f"not recognised: {path} {why}")
    for path in contents.leftovers:
        print(f"left by an interrupted prune: {path}, {text.size(folder_size(path))}; the next prune removes it")


def print_unknown_images(contents: Contents, needs: list[Need]) -> None:
    """Say of which runs the fingerprint is unknown, and why."""
    for need in needs:
        if need.unknown and any(need.fits(model) for model in contents.models):
            what = ", ".join("the images" if key == "images_sha256" else key for key in need.unknown)
            hint = (
                f" (no manifest of {need.dataset} that fits {need.config})" if "images_sha256" in need.unknown else ""
            )
            print(f"(?) {need.name}: {what} unknown{hint}; every model that is otherwise the same counts as needed")


def as_json(contents: Contents, needs: list[Need]) -> dict:
    """The store, for programs."""
    models = [
        {
            "fingerprint": model.fingerprint, "folder": str(model.folder), "label": model.label,
            "settings": model.value, "parameters": model.parameters, "trained": list(model.trained),
            "checkpoints": list(model.checkpoints), "bytes": model.size, "bytes_freed": model.freed,
            "state": model.state, "holder": model.holder, "damaged": model.damaged, "unknown_files": model.unknown,
            "needed_by": [vars_of(need) for need in fitting(model, needs)],
        }
        for model in contents.models
    ]  # fmt: skip
    unknown = [{"path": str(path), "why": why} for path, why in contents.unknown]
    return {
        "store": str(contents.path),
        "models": models,
        "absent": [vars_of(need) for need in absent(contents, needs)],
        "not_recognised": unknown,
        "leftovers": [str(path) for path in contents.leftovers],
    }


def vars_of(need: Need) -> dict:
    """A need without its settings."""
    keys = ("config", "run", "seed", "iterations", "unknown")
    return {key: getattr(need, key) for key in keys}


def prune(contents: Contents, needs: list[Need], arguments: argparse.Namespace) -> int:
    """Show what is not needed and remove it if that is wanted; 1 when something could not be removed."""
    unneeded = [model for model in contents.models if not fitting(model, needs)]
    doomed = [model for model in unneeded if not model.holder and not model.unknown]
    old = old_checkpoints(contents, needs) if arguments.checkpoints else {}
    files = {path: status for model in doomed for path, status in model.files.items()}
    files |= {path: status for statuses in old.values() for path, status in statuses.items()}
    print(f"{contents.path}: {count(len(contents.models), 'model')}; {' and '.join(dict.fromkeys(arguments.config))}"
          f" need{'s' * (len(set(arguments.config)) == 1)} {len(contents.models) - len(unneeded)} of them")  # fmt: skip
    print_unknown_images(contents, needs)
    for model in unneeded:
        if model.holder:
            print(f"kept: {model.folder} is not needed, but being trained by {model.holder}")
        elif model.unknown:
            print(f"kept: {model.folder} is not needed, but holds {', '.join(model.unknown)}, which blurdiff did not"
                  " write; remove it by hand")  # fmt: skip
    for path, why in contents.unknown:
        print(f"kept: {path} {why}")
    if doomed:
        print(f"not needed:\n{table_of(doomed, None)}")
    for model, paths in old.items():
        names = ", ".join(path.name for path in paths)
        print(f"checkpoints of the finished model {model}: {names}, {text.size(inventory.total_bytes(paths))}")
    for path in contents.leftovers:
        print(f"left by an interrupted prune: {path}, {text.size(folder_size(path))}")
    if not files and not contents.leftovers:
        print("nothing to remove")
        return 0
    total = inventory.total_bytes(files)
    freed = inventory.freed_bytes(files)
    leftover = sum(folder_size(path) for path in contents.leftovers)
    stays = "" if freed == total else f" ({text.size(total - freed)} have other hard links, in results for example)"
    print(f"{text.size(total + leftover)} in all; removing them frees {text.size(freed + leftover)}{stays}")
    if not arguments.yes and not confirmed():
        print("nothing removed; --yes removes what is shown")
        return 0
    return remove(contents, doomed, old)


def old_checkpoints(contents: Contents, needs: list[Need]) -> dict[str, dict[Path, os.stat_result]]:
    """Checkpoints that no needed training would go on from, by fingerprint: every run that needs the model has it."""
    old = {}
    for model in contents.models:
        users = fitting(model, needs)
        finished = not model.holder and not model.damaged and all(need.iterations in model.trained for need in users)
        longest = max(model.trained, default=0)
        paths = [path for iteration, path in model.checkpoints.items() if iteration <= longest and path in model.files]
        if users and finished and paths:
            old[model.fingerprint] = {path: model.files[path] for path in paths}
    return old


def confirmed() -> bool:
    """Ask, where somebody can answer."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return input("remove? [y/N] ").strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        print()
        return False


def remove(contents: Contents, doomed: list[StoredModel], old: dict[str, dict[Path, os.stat_result]]) -> int:
    """Delete models, each under its lock, then checkpoints and what an interrupted deletion left; 1 if some stayed."""
    failed = 0
    try:
        for path in contents.leftovers:
            with contextlib.suppress(FileNotFoundError):  # another prune is at it
                shutil.rmtree(path)
        for model in doomed:
            with inventory.held(model.folder) as mine:
                if not mine:
                    print(f"kept: {model.folder} is being trained by now")
                    failed = 1
                    continue
                # Renamed first: whatever interrupts this, the store holds whole models and leftovers to be deleted.
                gone = model.folder.with_name(inventory.REMOVING + model.folder.name)
                model.folder.rename(gone)
                sync(gone.parent)
                shutil.rmtree(gone)
            print(f"removed {model.folder}")
        for name, paths in old.items():
            folder = next(iter(paths)).parent
            with inventory.held(folder) as mine:
                for path in paths if mine else ():
                    path.unlink()
            print(f"removed the checkpoints of {name}" if mine else f"kept: {folder} is being trained by now")
            failed |= not mine
    except OSError as error:
        raise UserError(f"cannot remove {error.filename}: {error.strerror}; the rest of the store is intact") from error
    return int(failed)


def folder_size(path: Path) -> int:
    """Bytes of all files below."""
    return sum(file.lstat().st_size for file in Path(path).rglob("*") if not file.is_dir())


def count(n: int, noun: str) -> str:
    """`1 model`, `2 models`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
