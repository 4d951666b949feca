"""How long the jobs of a run took, from the files that Snakemake's `benchmark:` directive writes."""

import csv
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from blurdiff.errors import UserError

# The rules that have such files, in the order of an image's way.
STAGES = {
    "synthesize": "drawing synthetic images", "download": "downloading", "preprocess": "preparing images",
    "train": "training", "sample": "sampling", "reference": "features of the data", "evaluate": "evaluating samples",
    "sampler_study": "trying other samplers",
}  # fmt: skip


class Timing(NamedTuple):
    """One job, as it was when it last ran; None for what Snakemake could not measure."""

    rule: str
    job: str  # "RUN.seedSEED", with ".SHARD" of a shard; a data set, with "/PART" of a part
    seconds: float | None
    cpu_seconds: float | None
    memory: float | None  # at most, in MB


def read_timings(folder: Path) -> list[Timing]:
    """All jobs with a file in `folder`; none where there is no folder. UserError when a file is none of Snakemake's."""
    found = []
    for path in sorted(folder.glob("*/**/*.tsv")):
        try:
            with open(path, newline="", encoding="utf-8") as file:
                row = next(csv.DictReader(file, delimiter="\t"))
            numbers = [number(row[key]) for key in ("s", "cpu_time", "max_rss")]
        except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
            raise UserError(f"{path} is no benchmark of Snakemake's; delete it") from error
        rule, *job = path.relative_to(folder).with_suffix("").parts
        found.append(Timing(rule, "/".join(job), *numbers))
    return found


def number(text: str) -> float | None:
    """Snakemake writes "-" or "NA" for what it could not measure."""
    return None if text in ("-", "NA", "") else float(text)


def of_config(timings: list[Timing], datasets: Collection[str], models: Collection[str]) -> list[Timing]:
    """Those of data sets and of models ("RUN.seedSEED") of a config; files of earlier configs stay in the folder."""
    return [
        one
        for one in timings
        if one.job.split("/")[0] in datasets or {one.job, one.job.rpartition(".")[0]} & set(models)
    ]
