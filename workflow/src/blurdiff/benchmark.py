"""Time what the diffusion process costs beside the network, as a share of a forward pass of the paper's U-Net.

Rows: the U-Net's forward pass (the baseline of the same run), q_sample of a batch, and two steps of samplers without
the network (U, Uᵀ, coefficients, noise), for the paper's process and the released code's mode order. Repeats are
interleaved, so that a slow moment of the machine meets all rows; a row gives median, least and largest time.
"""

import argparse
import statistics
import sys
import time

COLUMNS = (
    "stage", "implementation", "device", "device_name", "precision", "threads", "batch", "resolution", "repeats",
    "seconds", "seconds_min", "seconds_max", "share_of_unet_forward",
)  # fmt: skip
PAPER_NETWORK = {
    "channels": 128, "multipliers": [1, 2, 3, 4], "n_res_blocks": 3, "attention_resolutions": [16, 8], "n_heads": 4,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--batch-size", type=int, default=128, help="images at once (default: 128; 8 is quick on a CPU)"
    )
    parser.add_argument("--resolution", type=int, default=64, help="pixels (default: 64, the paper's)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of each row (default: 5)")
    parser.add_argument("--output", required=True, metavar="CSV", help="table to write")


def run(arguments: argparse.Namespace) -> None:
    import csv
    import platform

    import torch

    from blurdiff.devices import pick_device
    from blurdiff.files import atomic_path

    device = pick_device(arguments.device, arguments.threads)
    cases = prepare(device, arguments.batch_size, arguments.resolution)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in cases}
    for repeat in range(arguments.repeats + 1):
        for key, work in cases.items():
            seconds = timed(work, device)
            if repeat:  # the first round warms up
                times[key].append(seconds)
    baseline = statistics.median(times["network", "unet_forward"])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    with atomic_path(arguments.output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for (stage, implementation), seconds in times.items():
            median = statistics.median(seconds)
            writer.writerow({
                "stage": stage, "implementation": implementation, "device": device.type, "device_name": name,
                "precision": "fp32", "threads": arguments.threads, "batch": arguments.batch_size,
                "resolution": arguments.resolution, "repeats": arguments.repeats, "seconds": f"{median:.6g}",
                "seconds_min": f"{min(seconds):.6g}", "seconds_max": f"{max(seconds):.6g}",
                "share_of_unet_forward": f"{median / baseline:.6g}",
            })  # fmt: skip
            print(f"{stage}, {implementation}: {median:.4g} s, {median / baseline:.3%} of a U-Net forward pass",
                  file=sys.stderr)  # fmt: skip


def timed(work, device) -> float:
    """Seconds that `work()` takes, waiting for a GPU to finish it."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def prepare(device, batch: int, resolution: int) -> dict:
    """What is timed: functions without arguments by (stage, implementation), the baseline first."""
    import torch

    from blurdiff.audit.settings import paper_process
    from blurdiff.devices import memory_format
    from blurdiff.diffusion.families import build_process
    from blurdiff.diffusion.samplers import SAMPLERS
    from blurdiff.unet import UNet

    network = UNet(resolution, **PAPER_NETWORK).to(device, memory_format=memory_format(device)).eval()
    x = torch.randn(batch, 3, resolution, resolution, device=device)
    noise = torch.randn_like(x)
    i = torch.randint(1, 1001, (batch,), device=device)
    generator = torch.Generator(device).manual_seed(0)

    @torch.inference_mode()
    def forward():
        network(x.contiguous(memory_format=memory_format(device)), i)

    cases = {("network", "unet_forward"): forward}
    for order in ("paper", "released"):
        settings = paper_process(f_type="quartic", f_N=0.140625, mode_order=order)
        process = build_process(settings, resolution).to(device)

        @torch.inference_mode()
        def q_sample(process=process):
            process.q_sample(x, i, noise)

        @torch.inference_mode()
        def step(process=process, sampler=None):
            # A grid of two steps; the transforms to pixels and back are part of the process, the network is left out.
            def epsilon(modes, i):
                return process.to_modes(process.to_pixels(modes))

            sampler(process, epsilon, x, [500, 499, 0], generator)

        cases["process", f"q_sample, {order} order"] = q_sample
        for name in ("reverse-diffusion", "ancestral", "ddim"):
            cases["process", f"two steps of {name}, {order} order"] = lambda step=step, name=name: step(
                sampler=SAMPLERS[name]
            )
    return cases
