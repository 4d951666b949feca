"""Look at the store of trained models, and remove from it what no config needs.

`list` shows every model: what it is, how far it is trained, its size and state. `prune` shows what none of the given
configs needs, and removes it when told to. A model is needed by a run with the same fingerprint: the same images,
process, network, training and seed. While a data set's manifest (results/data/NAME/manifest.json) is absent or older
than the config, its images are unknown, and every model that is otherwise the same counts as needed.
"""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the stage."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|prune", help="what to do")
    listed = actions.add_parser("list", help="show what the store holds", description="Show what the store holds.")
    removal = actions.add_parser(
        "prune",
        help="show, and with --yes remove, what no config needs",
        description="Show, and with --yes remove, what none of the given configs needs. A model that is being trained"
        " stays, as does everything that blurdiff did not write. Models in results/ are hard links and stay too.",
    )
    for part in (listed, removal):
        part.add_argument("--store", metavar="DIR", help="the store (default: that of the configs, or of the defaults)")
        part.add_argument(
            "--config", "--configfile", nargs="+", metavar="FILE", required=part is removal, default=[],
            action="extend",
            help="configs whose runs need models, each by itself; what Snakemake is given by --config must stand there",
        )  # fmt: skip
    listed.add_argument("--verify", action="store_true", help="compare every file with the digest in its name")
    listed.add_argument("--json", action="store_true", help="print JSON instead of a table")
    removal.add_argument("--yes", action="store_true", help="remove what is shown, without asking")
    removal.add_argument(
        "--checkpoints",
        action="store_true",
        help="also remove the checkpoints of finished models; a longer training of them would begin at 0 again",
    )


def run(arguments: argparse.Namespace) -> int:
    """The stage; 1 when --verify finds damage or something could not be removed."""
    from blurdiff.config.runs import load_config
    from blurdiff.store import listing, show
    from blurdiff.store.prune import prune

    configs = {path: load_config(path) for path in dict.fromkeys(arguments.config)}
    path = listing.store_path(arguments.store, configs)
    needs = [need for name, config in configs.items() for need in listing.needs_of(config, name)]
    contents = listing.read_store(path, arguments.action == "list" and arguments.verify)
    if arguments.action == "prune":
        return prune(contents, needs, list(configs), arguments.checkpoints, arguments.yes)
    if arguments.json:
        print(json.dumps(show.as_json(contents, needs), indent=2))
    else:
        show.print_list(contents, needs)
    return int(any(model.damaged for model in contents.models) and arguments.verify)
