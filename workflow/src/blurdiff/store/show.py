"""What a store holds, as a table for people and as JSON for programs; both are made from the record of a model."""

import re

from blurdiff.config.schema import completed, config_schema
from blurdiff.runtime import text
from blurdiff.store.listing import Contents, Need, StoredModel, absent, fitting, folder_size

HEADLINE = ("family", "f_type", "f_N", "direction", "prediction")  # what names a model in a table
RIGHT = "seed,pixels,parameters,iterations,checkpoint,size"
CHOICES = ("process", "network", "training")  # the sections of the settings that determine the weights


def settings_of(value: dict) -> dict[str, dict]:
    """Process, network and training of a stored model, with the defaults that its settings.json does not hold."""
    properties = config_schema()["properties"]
    return {part: completed({}, properties[part], "defaults") | value.get(part, {}) for part in CHOICES}


def describe(models: list[StoredModel]) -> tuple[dict, list[str]]:
    """(what all models have in common beyond the defaults, for each in words what it is otherwise)."""
    default = settings_of({})
    chosen = []
    for model in models:
        parts = settings_of(model.value)
        other = {key: item for part in CHOICES for key, item in parts[part].items()
                 if key in default[part] and item != default[part][key]}  # fmt: skip
        chosen.append({"f_type": parts["process"]["f_type"]} | other)
    common = {
        key: item
        for key, item in (chosen[0] if chosen else {}).items()
        if key not in HEADLINE and all(key in other and other[key] == item for other in chosen)
    }
    texts = []
    for own in chosen:
        words = [str(own.get("family", "no blur" if own["f_type"] == "none" else own["f_type"]))]
        words += [f"f_N {own['f_N']:g}"] if "f_N" in own else []
        words += [str(own[key]) for key in ("direction", "prediction") if key in own]
        words += [f"{key} {_short(own[key])}" for key in own if key not in common and key not in HEADLINE]
        texts.append(", ".join(words))
    return common, texts


def _short(value: object) -> str:
    """A setting's value in few words; a table's digest is cut."""
    if isinstance(value, float):
        return f"{value:g}"
    return value[:12] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else str(value)


def record(model: StoredModel, needs: list[Need]) -> dict:
    """All that is shown of a model: an entry of the JSON, and the source of a line of the table."""
    users = fitting(model, needs)
    return {
        "fingerprint": model.fingerprint, "folder": str(model.folder), "label": model.label,
        "settings": model.value, "parameters": model.parameters, "trained": list(model.trained),
        "checkpoints": list(model.checkpoints), "bytes": model.size, "bytes_freed": model.freed,
        "state": model.state, "holder": model.holder, "damaged": model.damaged, "unknown_files": model.unknown,
        "needed_by": [need.record for need in users],
    }  # fmt: skip


def table_of(models: list[StoredModel], needs: list[Need] | None) -> str:
    """A line for each model, below a line with what all have in common; with `needs` also which runs need it."""
    common, texts = describe(models)
    rows = [["fingerprint", "data set", "what", *RIGHT.split(","), "state"] + ["needed by"] * (needs is not None)]
    for model, what in zip(models, texts, strict=True):
        one, users = record(model, needs or []), fitting(model, needs or [])
        label = one["label"] or next((need.label for need in users if not need.unknown), None)
        top = {key: entry.get("default") for key, entry in config_schema()["properties"].items()} | one["settings"]
        also = f"; also holds {', '.join(one['unknown_files'])}" if one["unknown_files"] else ""
        row = [one["fingerprint"], label or f"images {str(top.get('images_sha256'))[:8]}…", what, top.get("seed"),
               top["resolution"], f"{one['parameters']:,}" if one["parameters"] else "-",
               ", ".join(map(str, one["trained"])) or "-", max(one["checkpoints"], default="-"),
               text.size(one["bytes"]), one["state"] + also]  # fmt: skip
        if needs is not None:
            row.append(", ".join(dict.fromkeys(need.name + " (?)" * bool(need.unknown) for need in users)) or "none")
        rows.append(row)
    above = ", ".join(f"{key} {_short(value)}" for key, value in common.items())
    return (f"in all: {above}\n" if above else "") + text.table(rows, RIGHT)


def print_list(contents: Contents, needs: list[Need]) -> None:
    """The store, for people."""
    print(f"{contents.path}: {count(len(contents.models))}, {text.size(sum(m.size for m in contents.models))}")
    if contents.models:
        print(table_of(contents.models, needs or None))
    for need in absent(contents, needs):
        print(f"not in the store: {need.name} of {need.config} ({need.iterations:,} iterations)")
    print_unknown(contents, needs)
    for path, why in contents.unknown:
        print(f"not recognised: {path} {why}")
    for path in contents.leftovers:
        print(f"left by an interrupted prune: {path}, {text.size(folder_size(path))}; the next prune removes it")


def print_unknown(contents: Contents, needs: list[Need]) -> None:
    """Say of which runs the fingerprint is unknown, and why."""
    found: dict[str, list[str]] = {}
    for need in needs:
        if need.unknown and any(need.fits(model) for model in contents.models):
            what = ", ".join("the images" if key == "images_sha256" else key for key in need.unknown)
            why = f" (no manifest of {need.dataset} that fits {need.config})" * ("images_sha256" in need.unknown)
            found.setdefault(f"{what} unknown{why}", []).append(need.name)
    for why, names in found.items():
        print(f"(?) {', '.join(dict.fromkeys(names))}: {why}; every model that is otherwise the same counts as needed")


def as_json(contents: Contents, needs: list[Need]) -> dict:
    """The store, for programs."""
    return {
        "store": str(contents.path),
        "models": [record(model, needs) for model in contents.models],
        "absent": [need.record for need in absent(contents, needs)],
        "not_recognised": [{"path": str(path), "why": why} for path, why in contents.unknown],
        "leftovers": [str(path) for path in contents.leftovers],
    }


def count(n: int) -> str:
    """`1 model`, `2 models`."""
    return f"{n:,} model{'s' * (n != 1)}"
