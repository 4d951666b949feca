"""Run the default config under `--use-conda` with the stand-in for conda: `python tests/conda/run_default.py FOLDER`.

FOLDER is new; it gets conda/ (the stand-in, its channel and packages) and run/ (results and environments, log.txt with
Snakemake's output). Further arguments go to Snakemake. At the end it checks that every job ran in the environment that
its rule names and took nothing from elsewhere, and says what ran where. Takes as long as the default run.
"""

import sys
from pathlib import Path

import use_conda
from env_files import ROOT


def main(folder: Path, options: list[str]) -> None:
    """Set up, run, check."""
    stand_in, work = folder.resolve() / "conda", folder.resolve() / "run"
    work.mkdir(parents=True)
    use_conda.set_up(stand_in)
    if not any(option.startswith(("--cores", "-c")) for option in options):
        options = ["--cores", "all", *options]
    try:
        output = use_conda.run(stand_in, work, "--snakefile", str(ROOT / "Snakefile"), *options, show=True)
    except AssertionError as error:
        (work / "log.txt").write_text(str(error))
        raise SystemExit(f"Snakemake failed; its output is in {work / 'log.txt'}") from None
    (work / "log.txt").write_text(output)
    try:
        ran = use_conda.check_jobs(work, use_conda.job_counts(output))
    except AssertionError as error:
        raise SystemExit(str(error)) from None
    print("\nEvery job ran in the environment that its rule names, and imported nothing from outside it:")
    print("\n".join(ran))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    if Path(sys.argv[1]).exists():
        raise SystemExit(f"{sys.argv[1]} exists: name a new folder")
    main(Path(sys.argv[1]), sys.argv[2:])
