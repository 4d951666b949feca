"""Put the results of a config on one page of HTML, which needs no other file and no network.

It shows what is in the folder of results, and lists what is not there yet.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stage's options."""
    parser.add_argument("--config", "--configfile", default="config/config.yaml", metavar="YAML",
                        help="whose results are shown (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", metavar="HTML", help="page to write (default: report.html among the results)")


def run(arguments: argparse.Namespace) -> None:
    """Write the page; nothing is written when a file is damaged."""
    from pathlib import Path

    from blurdiff.config.runs import load_config
    from blurdiff.reporting import page
    from blurdiff.runtime.files import write_text

    config = load_config(arguments.config)
    text = page.render(config)
    write_text(arguments.output or Path(config["results"]) / "report.html", text)
