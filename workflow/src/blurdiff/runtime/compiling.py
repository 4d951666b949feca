"""torch.compile where it works, the plain function where it does not."""

from collections.abc import Callable

import torch

from blurdiff.runtime.text import say


def wanted(setting: bool | None, device: torch.device) -> bool:
    """What a config's key `compile` means: null is on with a GPU and off on a CPU, where short runs do not earn the
    compilation back."""
    return device.type == "cuda" if setting is None else setting


def compile_or_plain(
    function: Callable, trial: Callable[[Callable], None], device: torch.device, same_random: bool = False
) -> Callable:
    """The compiled function, on a GPU replayed as CUDA graphs; `function` itself, after a warning, if that fails.

    `trial(f)` calls f as it will be called later, with inputs of the same shapes, backward pass included. What can go
    wrong (no C compiler, an operation that cannot be compiled, a graph that cannot be captured) goes wrong there, and
    not in a run. `same_random` keeps the random numbers inside of the function those of the plain one.
    """
    import torch._inductor.config as inductor

    inductor.compile_threads = torch.get_num_threads()  # a job keeps to the cores that it was given
    options: dict = {"triton.cudagraphs": device.type == "cuda", "fallback_random": same_random}
    fast = torch.compile(function, dynamic=False, fullgraph=True, options=options)
    try:
        for _ in range(3 if device.type == "cuda" else 1):  # a graph is warmed up, recorded, replayed
            trial(fast)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is, the plain function does not need it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        say(f"warning: torch.compile failed ({reason}); going on without it, which is slower and gives the same")
        return function
    return fast
