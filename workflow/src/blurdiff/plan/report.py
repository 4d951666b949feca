"""A plan in words and tables."""

from blurdiff.runtime.text import duration, size, table

UNITS = {
    "train": "images trained on",
    "sample": "network evaluations",
    "features": "images",
    "preprocess": "images",
    "synthesize": "images",
    "distance": "distances",
}


def text_of(plan: dict) -> str:
    """The plan as people read it on a terminal."""
    parts = [heading, models, stages, rates, totals, disk, memory, notes]
    return "\n\n".join("\n".join(lines) for part in parts if (lines := part(plan)))


def heading(plan: dict) -> list[str]:
    network, sets = plan["network"], []
    for name, part in plan["datasets"].items():
        words = "? images" if part["n_images"] is None else f"{part['n_images']:,} images"
        words += f", of which {part['n_read']:,} are read" if part["n_read"] else ""
        words += f", being made by {part['holder']}" if part["holder"] else ""
        sets.append(f"data: {name}, {words}")
    return [
        f"{plan['config']}, planned for {devices(plan)}",
        *sets,
        f"network: {network['parameters']:,} parameters, {operations(network['forward'])} per image forward,"
        f" {operations(network['training'])} forward and backward",
    ]


def wants_gpu(plan: dict) -> bool:
    return any(stage["device"] == "cuda" for stage in plan["stages"])


def devices(plan: dict) -> str:
    """Cores and, where a job wants one, GPUs."""
    cores = f"{plan['cores']} core{'s' * (plan['cores'] > 1)}"
    gpus = f" and {plan['gpus']} GPU{'s' * (plan['gpus'] > 1)} ({plan['gpu_here'] or 'no GPU here'})"
    return cores + gpus * wants_gpu(plan)


def models(plan: dict) -> list[str]:
    rows = [["model of", "iterations", "done", "state", "time left"]]
    for model in plan["models"]:
        at = model["iterations"] if model["finished"] else model["at"]
        rows.append([", ".join(model["runs"]), f"{model['iterations']:,}", f"{at / model['iterations']:.0%}",
                     state(model), "-" if not model["left"] else duration(model["left"])])  # fmt: skip
    unsure = any(not model["certain"] and model["fingerprint"] for model in plan["models"])
    why = "(?) its images are not there, so that it may be a model of others that is otherwise the same"
    return [table(rows, "iterations,done,time left"), *[why] * unsure]


def state(model: dict) -> str:
    """What the store knows of a model."""
    if model["fingerprint"] is None:
        return "to be trained"
    if model["finished"]:
        words = "in the store"
    elif model["holder"]:
        words = f"being trained by {model['holder']}"
        if model["checkpoint_age"] is not None:
            words += f", checkpoint {model['at']:,} is {duration(model['checkpoint_age'])} old"
    else:
        words = f"goes on from {model['at']:,}" if model["at"] else "begun"
    return words if model["certain"] else f"{words} (?)"


def stages(plan: dict) -> list[str]:
    rows = [["stage", "jobs", "there", "device", "left to do", "operations", "time"]]
    for stage in plan["stages"]:
        work = [f"{n:,.0f} {UNITS[kind]}" for kind, n in stage["work"].items() if n]
        time = "?" if stage["seconds"] is None else duration(stage["seconds"])
        rows.append([
            stage["rule"], stage["jobs"], stage["done"], "GPU" if stage["device"] == "cuda" else "CPU",
            " + ".join(work) or "-", operations(stage["flops"]) if stage["flops"] else "-",
            "-" if stage["done"] == stage["jobs"] else time,
        ])  # fmt: skip
    return [table(rows, "jobs,there,operations,time")]


def rates(plan: dict) -> list[str]:
    """What was measured."""
    found = dict.fromkeys(tuple(rate) for stage in plan["stages"] for rate in stage["rates"])
    rows = [["measured here", "rate", "on"], *([kind, rate_of(kind, seconds), on] for kind, on, seconds in found)]
    if plan["start_seconds"]:
        rows.append(["start of a job", duration(plan["start_seconds"]), "import of PyTorch, in each job that needs it"])
    return [table(rows)] * (len(rows) > 1)


def rate_of(kind: str, seconds: float) -> str:
    """Units per second, or seconds per unit where that is more."""
    unit = UNITS[kind].removesuffix(" trained on").removeprefix("network ")
    return f"{number(1 / seconds)} {unit}/s" if seconds < 1 else f"one in {duration(seconds)}"


def totals(plan: dict) -> list[str]:
    total, lines, tflops = plan["totals"], [], plan["tflops"]
    if wants_gpu(plan) and total["gpu_hours"] is not None:
        how = f" at {tflops:g} TFLOP/s, which you gave" if tflops and not plan["gpu_here"] else ""
        lines.append(f"GPU-hours: {number(total['gpu_hours'])}{how}")
    elif wants_gpu(plan):
        why = "nothing measured" if plan["gpu_here"] else "no GPU here"
        rate, hint = tflops or 1, "" if tflops else " (--tflops: at another rate)"
        hours = f"{number(total['gpu_flops'] / rate / 3.6e15)} hours at {rate:g} TFLOP/s{hint}"
        lines.append(f"{why}: GPU-hours not estimated; {operations(total['gpu_flops'])} in all = {hours}")
    if total["cpu_hours"] is not None:
        lines.append(f"CPU-hours: {number(total['cpu_hours'])}")
    elif plan["start_seconds"] is None:
        lines.append(f"nothing measured: hours not estimated; {operations(total['flops'])} in all")
    if plan["start_seconds"]:
        spent = duration(total["starts"] * plan["start_seconds"])
        lines.append(f"of these hours {spent} are {total['starts']} starts of PyTorch")
    if total["wall_hours"] is not None:
        lines.append(f"from start to end: {duration(3600 * total['wall_hours'])} on {devices(plan)}")
    return lines


def disk(plan: dict) -> list[str]:
    rows = [["disk", "in the end", "there"]]
    rows += [[what, size(row["bytes"]), size(row["there"])] for what, row in plan["disk"].items()]
    needed = sum(row["bytes"] - row["there"] for row in plan["disk"].values())
    rows.append(["still to be written", size(needed), ""])
    space = plan["free"].items()
    free = [f"free where {place} is: {size(n)}" + ": NOT ENOUGH" * (n < needed) for place, n in space]
    return [table(rows, "in the end,there"), *free]


def memory(plan: dict) -> list[str]:
    process = plan["memory"]["process"]
    own = f", beside {size(process)} of a process with PyTorch" if process else ""
    lines = []
    for entry in plan["memory"]["training"]:
        parts = ", ".join(f"{what} {size(n)}" for what, n in entry["bytes"].items())
        kind = f"{'GPU' if entry['device'] == 'cuda' else 'host'}, batch {entry['batch_size']}, {entry['precision']}"
        beside = own if entry["device"] == "cpu" else ""
        lines.append(
            f"memory of a training ({kind}): {size(sum(entry['bytes'].values()))} at its peak{beside}: {parts}"
        )
        if entry["images"]:
            lines.append(f"  and {size(entry['images'])} of images, if half of the GPU memory that is free holds them")
    return [*lines, f"memory of an evaluation (host): arrays of {size(plan['memory']['evaluation_arrays'])}{own}"]


def notes(plan: dict) -> list[str]:
    parts = plan["datasets"].items()
    lines = [f"{name}: {part['known_from']}" for name, part in parts if "not there" in part["known_from"]]
    if any("eager" in on for stage in plan["stages"] if stage["device"] == "cuda" for _, on, _ in stage["rates"]):
        lines.append("Jobs on a GPU compile their network and are faster than measured here; --compile measures that.")
    return [*lines, "Not in these times: figures, tables and audit (half a minute each), downloads, Snakemake itself."]


def operations(n: float) -> str:
    """FLOPs: "79.4 GFLOP"."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if n < 999.5:
            return f"{n:.3g} {unit}FLOP"
        n /= 1000
    return f"{n:,.3g} EFLOP"


def number(value: float) -> str:
    """Three digits, or as many as there are before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
