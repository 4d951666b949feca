"""Print the resolved settings of a config file's runs as JSON: what every other stage takes as --settings.

Resolved means: checked, defaults filled in, and a run's own keys laid over its data set's and the sections'. With
--run NAME one settings object is printed; with several names, or none, a list of them.
"""

import argparse
import json

from blurdiff.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    parser.add_argument(
        "--config", "--configfile", default="config/config.yaml", metavar="YAML", help="(default: %(default)s)"
    )
    parser.add_argument("--run", nargs="+", metavar="NAME", help="only these runs (default: all)")
    parser.add_argument("--seed", type=int, help="only this seed (default: all, with --run the first)")


def run(arguments: argparse.Namespace) -> None:
    """The stage."""
    from blurdiff.config.runs import load_config, resolve_runs

    config = load_config(arguments.config)
    names = [run["name"] for run in config["runs"]]
    for name in arguments.run or ():
        if name not in names:
            raise UserError(f"{arguments.config}: no run is named {name}; there are {', '.join(names)}")
    seed = config["seeds"][0] if arguments.run and arguments.seed is None else arguments.seed
    if seed is not None and seed not in config["seeds"]:
        raise UserError(f"{arguments.config}: seeds: {seed} is not among {', '.join(map(str, config['seeds']))}")
    chosen = [settings for settings in resolve_runs(config) if seed in (None, settings.seed)]
    if arguments.run:
        chosen = [settings for name in arguments.run for settings in chosen if settings.run == name]
    plain = [settings.as_dict() for settings in chosen]
    print(json.dumps(plain[0] if arguments.run and len(plain) == 1 else plain, indent=2))
