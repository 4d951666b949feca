"""FLOPs and bytes of operators, counted while they run."""

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

# Memory is taken, nothing is written yet.
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class ByteCounter(TorchDispatchMode):
    """While entered, adds up in `total` the bytes that each operator reads and writes: its tensors, once each.

    Views are free. It is what unfused operators move to and from memory if no cache keeps anything between them.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = getattr(func, "overloadpacket", None)
        name = getattr(packet, "__name__", "")
        if name in ALLOCATIONS:
            return result
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        held = {_storage(tensor) for tensor in read}
        fresh = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and _storage(leaf) not in held]
        changed = []
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = kwargs.get(argument.name, args[position] if position < len(args) else None)
                changed += [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        if fresh or changed or not isinstance(result, torch.Tensor):
            self.total += sum(map(_n_bytes, [*read, *fresh, *changed]))
        return result


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _n_bytes(tensor: torch.Tensor) -> int:
    """Of the elements that there are: an expanded tensor has fewer than its shape says."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def count(work: Callable[[], object]) -> tuple[int, int]:
    """(FLOPs, bytes) of one call of `work`: FLOPs of matrix products, convolutions and attention, as FlopCounterMode
    counts them, two a multiply-add; bytes as ByteCounter counts them."""
    with FlopCounterMode(display=False) as flops, ByteCounter() as traffic:
        work()
    return flops.get_total_flops(), traffic.total


# FlopCounterMode does not know a CPU's fused attention: its formulas are those of a GPU's.
for _suffix in ("", "_backward"):
    _operator = getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention_for_cpu{_suffix}")
    if _operator not in flop_registry:
        _formula = flop_registry[getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention{_suffix}")]
        register_flop_formula(_operator, get_raw=True)(_formula)
