import pytest
import torch

from blurdiff.runtime import compiling
from compiling_helpers import needs_compiler, no_compiler

CPU = torch.device("cpu")


def wave(x):
    return (3 * x + 1).sin()


def trial(function):
    function(torch.zeros(8))


def test_null_is_on_with_a_gpu():
    assert compiling.wanted(None, torch.device("cuda"))
    assert not compiling.wanted(None, CPU)
    for setting in (True, False):
        assert compiling.wanted(setting, CPU) == compiling.wanted(setting, torch.device("cuda")) == setting


@needs_compiler
def test_compiled_is_the_same_function(capsys):
    fast = compiling.compile_or_plain(wave, trial, CPU)
    assert fast is not wave
    assert capsys.readouterr().err == ""
    x = torch.linspace(-3, 3, 8)
    assert torch.allclose(fast(x), wave(x), rtol=0, atol=1e-6)


@needs_compiler
def test_random_numbers_inside_are_those_of_the_plain_function():
    """Dropout, and a gradient through it."""
    x = torch.linspace(-3, 3, 64, requires_grad=True)

    def drop(x):
        return torch.nn.functional.dropout(x.sin(), 0.4)

    results = []
    for function in (drop, compiling.compile_or_plain(drop, lambda f: f(x).sum().backward(), CPU, same_random=True)):
        x.grad = None
        torch.manual_seed(5)
        y = function(x)
        y.square().sum().backward()
        results.append((y.detach(), x.grad))
    assert function is not drop
    for plain, fast in zip(*results, strict=True):
        assert torch.allclose(plain, fast, rtol=0, atol=1e-6)
    assert (results[0][0] == 0).any()


def test_no_compiler_is_one_warning(tmp_path, capsys):
    with no_compiler(tmp_path):
        assert compiling.compile_or_plain(wave, trial, CPU) is wave
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "compile" in line]
    assert line.startswith("warning: torch.compile failed (")
    assert "going on without it" in line


def test_what_fails_in_the_trial_is_not_used(capsys):
    def fails(function):
        function(torch.zeros(8)).no_such_method()

    assert compiling.compile_or_plain(wave, fails, CPU) is wave
    assert "no_such_method" in capsys.readouterr().err


def test_full_memory_is_no_failure_to_compile():
    def fails(function):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        compiling.compile_or_plain(wave, fails, CPU)
