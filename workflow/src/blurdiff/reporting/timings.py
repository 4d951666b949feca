"""How long the jobs of a run took, from the files that Snakemake's `benchmark:` directive writes."""

import csv
import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from blurdiff.errors import UserError

# The rules that have such files, in the order of an image's way.
STAGES = {
    "synthesize": "drawing synthetic images", "download": "downloading", "preprocess": "preparing images",
    "train": "training", "sample": "sampling", "reference": "features of the data", "evaluate": "evaluating samples",
    "sampler_study": "trying other samplers",
}  # fmt: skip
COLUMNS = {"s": "seconds", "cpu_time": "cpu_seconds", "max_rss": "max_rss_mb"}  # Snakemake's and ours


def read_timings(folder: Path) -> pd.DataFrame:
    """All jobs with a file in `folder`, as they were when they last ran; none where there is no folder.

    `job` is "RUN.seedSEED", with ".SHARD" of a shard; or a data set, with "/PART" of a part. Numbers are NaN where
    Snakemake could not measure. UserError when a file is none of its.
    """
    found = []
    for path in sorted(folder.glob("*/**/*.tsv")):
        try:
            with open(path, newline="", encoding="utf-8") as file:
                row = next(csv.DictReader(file, delimiter="\t"))
            numbers = [number(row[key]) for key in COLUMNS]
        except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
            raise UserError(f"{path} is no benchmark of Snakemake's; delete it") from error
        rule, *job = path.relative_to(folder).with_suffix("").parts
        found.append((rule, "/".join(job), *numbers))
    return pd.DataFrame(found, columns=["rule", "job", *COLUMNS.values()])


def number(text: str) -> float:
    """Snakemake writes "-" or "NA" for what it could not measure."""
    return math.nan if text in ("-", "NA", "") else float(text)


def of_config(timings: pd.DataFrame, datasets: Collection[str], models: Collection[str]) -> pd.DataFrame:
    """Those of data sets and of models ("RUN.seedSEED") of a config; files of earlier configs stay in the folder."""
    own = [job.split("/")[0] in datasets or bool({job, job.rpartition(".")[0]} & set(models)) for job in timings["job"]]
    return timings.loc[np.array(own, dtype=bool)]
