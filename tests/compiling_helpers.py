"""For tests of what torch.compile makes faster."""

import contextlib
import os
import shutil

import pytest
import torch

slow = pytest.mark.skipif(
    "BLURDIFF_SLOW" not in os.environ, reason="takes two minutes of a core; BLURDIFF_SLOW=1 runs it"
)
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")


@contextlib.contextmanager
def no_compiler(folder):
    """While entered, everything is as on a machine without a C++ compiler."""
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    with inductor.patch({"cpp.cxx": (str(folder / "absent-compiler"),), "force_disable_caches": True}):
        yield
    torch._dynamo.reset()
