import argparse
import getpass
import importlib
import os
import sys

import pytest

import blurdiff
from blurdiff import cli
from blurdiff.errors import UserError
from running import run_python


def test_overview_lists_every_stage(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, summary in cli.STAGES.items():
        assert f"  {name} " in text
        assert summary in text
    assert cli.main([]) == 2
    assert capsys.readouterr().out == text


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == blurdiff.__version__


def test_unknown_stage(capsys):
    assert cli.main(["tain"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "'tain'" in line


@pytest.mark.parametrize("stage", sorted(cli.STAGES))
def test_every_stage_is_documented(stage, capsys):
    module = importlib.import_module(cli.module_name(stage))
    assert module.__doc__
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    for action in parser._actions:
        assert action.help, f"{stage}: {action.dest} has no help"
    with pytest.raises(SystemExit) as caught:
        cli.main([stage, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: blurdiff {stage}")
    assert " ".join(module.__doc__.split()) in text


def fake_stage(monkeypatch, run):
    """A stage `fake` that does `run`."""
    module = argparse.Namespace(__doc__="Nothing.", add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, "blurdiff.commands.fake", module)
    monkeypatch.setitem(cli.STAGES, "fake", "nothing")


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    fake_stage(monkeypatch, interrupted)
    assert cli.main(["fake"]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("interrupted; ")


def test_paths_of_every_option_may_have_a_home_and_variables(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    seen = []
    fake_stage(monkeypatch, seen.append)

    def add_arguments(parser):
        for name in ("--output", "--settings", "--label", "--n"):
            parser.add_argument(name, type=int if name == "--n" else None)
        parser.add_argument("--images", nargs="+")

    sys.modules["blurdiff.commands.fake"].add_arguments = add_arguments
    settings = '{"label": "$DISK"}'
    words = ["--output=~/a", "--settings", settings, "--label", "cost $5", "--n", "3", "--images", "$DISK/1", "./~"]
    assert cli.main(["fake", *words]) == 0
    expected = {"output": "/home/me/a", "settings": settings, "label": "cost $5", "n": 3, "images": ["/disk/1", "./~"]}
    assert vars(seen[0]) == expected
    assert cli.main(["fake", "--images", "a", "$NO_SUCH/b"]) == 1
    assert capsys.readouterr().err.startswith("error: --images: $NO_SUCH/b: the variable NO_SUCH is not set")


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_id_without_a_name_has_a_cache(monkeypatch, error):
    def fail():
        raise error("uid not found")

    monkeypatch.setattr(getpass, "getuser", fail)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    fake_stage(monkeypatch, lambda arguments: None)
    assert cli.main(["fake"]) == 0
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].endswith(f"torchinductor_{os.getuid()}")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    assert cli.main(["fake"]) == 0
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (75, 75)])
def test_exit_status(monkeypatch, returned, status):
    fake_stage(monkeypatch, lambda arguments: returned)
    assert cli.main(["fake"]) == status


def test_user_errors_are_one_line(monkeypatch, capsys):
    def fail(arguments):
        raise UserError("a file\nis not   right;\n  remove it")

    fake_stage(monkeypatch, fail)
    assert cli.main(["fake"]) == 1
    assert capsys.readouterr() == ("", "error: a file is not right; remove it\n")


def test_other_errors_keep_their_traceback(monkeypatch):
    """A mistake in the program must not look like one of the user's."""

    def fail(arguments):
        raise ZeroDivisionError

    fake_stage(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["fake"])


def test_overview_and_light_stages_do_not_import_torch():
    """Snakemake starts many small jobs; torch takes seconds."""
    code = (
        "import importlib, sys; from blurdiff.cli import STAGES, main; assert main(['--help']) == 0\n"
        "for stage in STAGES: importlib.import_module('blurdiff.commands.' + stage.replace('-', '_'))\n"
        "assert not {'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    assert run_python("-c", code).returncode == 0


def test_python_m():
    result = run_python("-m", "blurdiff", "nothing")
    assert result.returncode == 2
    assert "no stage named 'nothing'" in result.stderr
