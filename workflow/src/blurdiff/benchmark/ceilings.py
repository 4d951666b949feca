"""What the device can do at most: a large matrix product in each precision, and a large copy.

A 3 x 3 convolution of a well-suited size stands beside them, since networks are made of those: on a CPU the two come
from different libraries, and the convolution can be the faster one.
"""

import torch

from blurdiff.benchmark.rows import CEILINGS, CONVOLUTION, COPY, MATMUL, Bench, Row, Work
from blurdiff.benchmark.settings import has_bf16
from blurdiff.runtime.devices import CUDNN, memory_format


def stages(bench: Bench) -> list[list[Row]]:
    """The rows of the one stage."""
    size = bench.size(512, 2048, 8192)
    n_bytes = 1 << bench.size(24, 28, 32)  # a GPU's caches hold up to 2^27 bytes
    images = bench.size(1, 8, 256)
    precisions = MATMUL if bench.on_gpu else ["fp32", "bf16"] if has_bf16() else ["fp32"]
    kinds = [
        *((MATMUL[name], matrix_product, {"precision": name, "size": size}) for name in precisions),
        *((f"{CONVOLUTION}, {name}", convolution, {"precision": name, "images": images}) for name in precisions),
    ]
    of_products = [Row(CEILINGS, *kind, unit="FLOP/s", host=CEILINGS) for kind in kinds]
    return [[*of_products, Row(CEILINGS, COPY, copy, {"n_bytes": n_bytes}, unit="bytes/s", host=CEILINGS)]]


def matrix_product(device, threads: int, precision: str, size: int) -> Work:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))  # zeros would be faster
    out = torch.empty_like(a)

    def call() -> None:
        if device.type == "cuda":
            torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        torch.matmul(a, b, out=out)

    return Work(call, 2 * size**3, precision, note=f"{size} x {size} by {size} x {size}")


def convolution(device, threads: int, precision: str, images: int) -> Work:
    """256 to 256 channels at 32 x 32."""
    channels, side = 256, 32
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.randn(images, channels, side, side, device=device).to(dtype, memory_format=memory_format(device))
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype, memory_format=memory_format(device))

    @torch.inference_mode()
    def call() -> None:
        if device.type == "cuda":
            CUDNN.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
            CUDNN.benchmark = True
        torch.nn.functional.conv2d(x, weight, padding=1)

    flops = 2 * 9 * channels**2 * side**2 * images
    return Work(call, flops, precision, note=f"{images} x {channels} x {side} x {side}, to as many channels")


def copy(device, threads: int, n_bytes: int) -> Work:
    source = torch.randint(0, 255, (n_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Work(lambda: target.copy_(source), 2 * n_bytes, "", note=f"{n_bytes / 1e6:,.0f} MB; bytes read and written")
