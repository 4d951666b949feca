"""Remove from a store what no config needs: whole models under their lock, and checkpoints of finished ones."""

import contextlib
import os
import shutil
import sys
from pathlib import Path

from blurdiff.errors import UserError
from blurdiff.runtime import text
from blurdiff.runtime.files import sync
from blurdiff.runtime.locks import held
from blurdiff.store import listing, show
from blurdiff.store.listing import Contents, Need, StoredModel


def prune(contents: Contents, needs: list[Need], configs: list[str], checkpoints: bool, yes: bool) -> int:
    """Show what none of `configs` needs and remove it if that is wanted; 1 when something could not be removed."""
    unneeded = [model for model in contents.models if not listing.fitting(model, needs)]
    doomed = [model for model in unneeded if not model.holder and not model.unknown]
    old = old_checkpoints(contents, needs) if checkpoints else {}
    files = {path: status for part in [*(model.files for model in doomed), *old.values()]
             for path, status in part.items()}  # fmt: skip
    print(f"{contents.path}: {show.count(len(contents.models))}; {' and '.join(configs)}"
          f" need{'s' * (len(configs) == 1)} {len(contents.models) - len(unneeded)} of them")  # fmt: skip
    show.print_unknown(contents, needs)
    for model in unneeded:
        if model.holder:
            print(f"kept: {model.folder} is not needed, but being trained by {model.holder}")
        elif model.unknown:
            print(f"kept: {model.folder} is not needed, but holds {', '.join(model.unknown)}, which blurdiff did not"
                  " write; remove it by hand")  # fmt: skip
    for path, why in contents.unknown:
        print(f"kept: {path} {why}")
    if doomed:
        print(f"not needed:\n{show.table_of(doomed, None)}")
    for folder, paths in old.items():
        names = ", ".join(path.name for path in paths)
        print(f"checkpoints of the finished model {folder.name}: {names}, {text.size(listing.total_bytes(paths))}")
    for path in contents.leftovers:
        print(f"left by an interrupted prune: {path}, {text.size(listing.folder_size(path))}")
    if not files and not contents.leftovers:
        print("nothing to remove")
        return 0
    total, freed = listing.total_bytes(files), listing.freed_bytes(files)
    leftover = sum(map(listing.folder_size, contents.leftovers))
    stays = "" if freed == total else f" ({text.size(total - freed)} have other hard links, in results for example)"
    print(f"{text.size(total + leftover)} in all; removing them frees {text.size(freed + leftover)}{stays}")
    if not yes and not confirmed():
        print("nothing removed; --yes removes what is shown")
        return 0
    return remove(contents.leftovers, doomed, old)


def old_checkpoints(contents: Contents, needs: list[Need]) -> dict[Path, dict[Path, os.stat_result]]:
    """Checkpoints that no needed training would go on from, by folder: every run that needs the model has it."""
    old = {}
    for model in contents.models:
        users = listing.fitting(model, needs)
        finished = not model.holder and not model.damaged and all(need.iterations in model.trained for need in users)
        longest = max(model.trained, default=0)
        paths = [path for iteration, path in model.checkpoints.items() if iteration <= longest and path in model.files]
        if users and finished and paths:
            old[model.folder] = {path: model.files[path] for path in paths}
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


def remove(leftovers: list[Path], doomed: list[StoredModel], old: dict[Path, dict[Path, os.stat_result]]) -> int:
    """Delete what an interrupted deletion left, then models and checkpoints under their locks; 1 if some stayed."""
    failed = 0
    try:
        for path in leftovers:
            with contextlib.suppress(FileNotFoundError):  # another prune is at it
                shutil.rmtree(path)
        for folder in [*(model.folder for model in doomed), *old]:
            with held(folder) as mine:
                if not mine:
                    print(f"kept: {folder} is being trained by now")
                    failed = 1
                elif folder in old:
                    for path in old[folder]:
                        path.unlink()
                    print(f"removed the checkpoints of {folder.name}")
                else:
                    # Renamed first: whatever interrupts this, the store holds whole models and leftovers to be deleted.
                    gone = folder.with_name(listing.REMOVING + folder.name)
                    folder.rename(gone)
                    sync(gone.parent)
                    shutil.rmtree(gone)
                    print(f"removed {folder}")
    except OSError as error:
        raise UserError(f"cannot remove {error.filename}: {error.strerror}; the rest of the store is intact") from error
    return failed
