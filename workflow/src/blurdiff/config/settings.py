"""What a config may say: every key once, with its type, range, default and meaning.

From these classes come the JSON schema (schema.py) and the tables of config/README.md, which `python -m
blurdiff.config.reference` writes, the typed settings that functions take, and what a fingerprint holds (keys.py).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from blurdiff.config.keys import REQUIRED, Section, integer, key, list_of, nullable, number, one_of

TRUTH = {"type": "boolean"}
TEXT = {"type": "string", "minLength": 1}
PATH = {**TEXT, "format": "path"}  # `~` and `$VARIABLE` are filled in (schema.completed)
# Names of runs and data sets become names of files, of at most 255 bytes, with other words before and behind them.
NAME_LENGTH = 120
NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]*$", "maxLength": NAME_LENGTH}
SEED = integer(0, 2**32 - 1)
DEVICE = one_of("cpu", "cuda")
PRECISION = one_of("fp32", "bf16")
THREADS = integer(1, 1024)

BASES = ("gaussian-blur", "dct", "dst", "haar", "pixel")
BLUR_SCHEDULES = ("none", "linear", "quadratic", "cubic", "quartic", "log", "triangular", "table")
FAMILIES = ("blur", "shaped-noise", "blurring-diffusion", "ihdm")
NOISE_SCHEDULES = ("linear", "cosine", "cosine-bounded", "exponential")
PREDICTIONS = ("epsilon", "v", "x0", "score", "std", "gaussian")
LOSSES = ("epsilon", "x0", "prediction", "balanced", "score")
SAMPLERS = {  # and what figures call them
    "reverse-diffusion": "reverse diffusion",
    "ancestral": "ancestral",
    "ddim": "DDIM",
    "ode-heun": "ODE, Heun",
}
GRIDS = ("uniform", "quadratic", "snr", "information")
FIGURES = {
    "figure1": "reverse processes side by side",
    "animation": "the same, moving, with every state that is kept",
    "figure2": "grids of samples (in the paper: log, quartic)",
    "figure3": "grids of samples (in the paper: fine-to-coarse, coarse-to-fine)",
    "figure4": "blur schedules f(i)",
    "factor": "by what an error of ε is multiplied in x_0, by timestep and mode",
    "tilts": "spectral tilt and mean SNR of each process, by timestep",
    "samples": "samples of every run beside real images",
    "forward": "the forward process of one image",
    "training": "training loss by quarter of the timesteps",
    "spectrum": "power spectrum of samples against that of the data",
    "metrics": "every metric of every run (all seeds), beside what the data gets",
}


# Processes of other papers, and of the authors' released code, as process keys; a run's own keys are laid over them.
PRESETS: dict[str, dict[str, Any]] = {
    "ddpm": {"family": "blur", "basis": "pixel", "f_type": "none", "f_N": 0.0},
    "blurring-diffusion": {"family": "blurring-diffusion", "noise_schedule": "cosine-bounded", "sigma_max": 20.0},
    "ihdm": {"family": "ihdm", "sigma_max": 20.0},
    "equal-snr": {"family": "shaped-noise", "basis": "dct", "noise_shape": "data"},
    "released-code": {"mode_order": "released", "f_anchor": "released", "floor": 0.03, "skip_last_timestep": True},
}


@dataclass(frozen=True)
class ProcessConfig(Section):
    """The diffusion process."""

    family: str = key(
        "blur",
        one_of(*FAMILIES),
        "the paper's process; DDPM with coloured noise (`noise_shape`); Blurring Diffusion (arXiv 2209.05557); `ihdm`"
        " (arXiv 2206.13397), a forward process only, so that a run of it is shown but not trained",
    )
    n_timesteps: int = key(1000, integer(2, 100_000), "N")
    noise_schedule: str = key("linear", one_of(*NOISE_SCHEDULES), "how much noise each step adds")
    beta_1: float = key(1e-4, number(exclusiveMinimum=0, exclusiveMaximum=1), "first β of the linear schedule")
    beta_N: float = key(0.02, number(exclusiveMinimum=0, exclusiveMaximum=1), "last β of the linear schedule")
    basis: str = key("gaussian-blur", one_of(*BASES), "what the modes are")
    border: str = key(
        "zero",
        one_of("zero", "circular", "reflect"),
        "what lies beyond the border of the image (basis `gaussian-blur`)",
    )
    sigma: float = key(
        0.4, number(exclusiveMinimum=0, maximum=100), "standard deviation of the blur W, in pixels at `resolution`"
    )
    power: str = key(
        "blur",
        PATH,
        "what one blur leaves of a mode: the blur's eigenvalues (`blur`), heat dissipation e^(−λσ²/2) (`heat`), or R or"
        " R×R numbers from a CSV (its path)",
        is_file_unless=("blur", "heat"),
    )
    f_type: str = key("none", one_of(*BLUR_SCHEDULES), "blur schedule f(i)")
    f_N: float = key(
        0.0, number(minimum=0, maximum=1_000_000), "f(N), of `triangular` the peak; 0 with `none`, else larger than 0"
    )
    f_anchor: str = key(
        "paper",
        one_of("paper", "released"),
        "f(0) = 0, or as in the authors' code (`linear`, `quadratic`, `log`)",
    )
    f_table: str | None = key(
        None,
        nullable(PATH),
        "path of a CSV with the columns i and f, for `f_type: table`",
        is_file_unless=(None,),
    )
    direction: str = key(
        "coarse-to-fine",
        one_of("coarse-to-fine", "fine-to-coarse", "reversed"),
        "D; 1 − D; D's values handed to the modes in opposite order",
    )
    floor: float = key(
        0.0,
        number(minimum=0, exclusiveMaximum=1),
        "least value of D; needed by `fine-to-coarse` where 1 − D is 0 for the mean (`border` not `zero`, `basis` other"
        " than `gaussian-blur` and `dst`)",
    )
    mode_order: str = key(
        "paper",
        one_of("paper", "released"),
        "`released`: D's values in the order in which the authors' code uses them, which is not the blur for colour"
        " images",
    )
    skip_last_timestep: bool = key(
        False,
        TRUTH,
        "the authors' code: timestep N is neither trained nor sampled, and sampling starts at N − 1",
    )
    sigma_max: float = key(
        20.0,
        number(exclusiveMinimum=0, maximum=10_000),
        "strongest blur of `blurring-diffusion` and `ihdm`, in pixels",
    )
    snr_shift: float | str = key(
        0.0,
        {"type": ["number", "string"], "minimum": -20, "maximum": 20, "pattern": "^auto$"},
        "added to the log signal-to-noise ratio of every mode at every timestep; `auto`: the scale model of the same"
        " process at 64 pixels, 2 log(64/R), whose blur is then given in pixels at 64",
    )
    snr_tilt: float | None = key(
        None,
        nullable(number(minimum=-10, maximum=10)),
        "p: the SNR of a mode of power S in the images is multiplied by (S/S̄)^−p, S̄ the geometric mean over modes"
        " (family `blur`). Without blur, 0 is DDPM, 1 gives all modes the same SNR, more is fine to coarse, and below 0"
        " coarse modes are lost even later than in DDPM. With a number, 0 too, the model's file holds the images'"
        " prior (null: no tilt)",
    )
    noise_shape: float | str = key(
        0.0,
        {"type": ["number", "string"], "minimum": -10, "maximum": 10, "pattern": "^data$"},
        "family `shaped-noise`: `data`, noise of each mode as strong as the images' (equal SNR, arXiv 2505.11278); a"
        " number α, amplitudes proportional to frequency^α (arXiv 2510.09660)",
    )
    prediction: str = key(
        "epsilon",
        one_of(*PREDICTIONS),
        "what the network predicts: the noise ε (the paper), v, the image x_0, the score, the noise as it is added"
        " (`std`), or (`gaussian`) what is not known already from the mean and the power of every mode of the images",
    )
    loss: str = key(
        "epsilon",
        one_of(*LOSSES),
        "where errors are squared: in ε (the paper's L_ε, whatever is predicted), in x_0, in the prediction itself,"
        " half-way between the first and that (`balanced`), or in the score, weighted by λ(i)",
    )
    range: str = key("unit", one_of("unit", "symmetric"), "pixel values in [0, 1] or [−1, 1]")

    @property
    def last_timestep(self) -> int:
        """The last timestep that is trained, at which sampling starts."""
        return self.n_timesteps - self.skip_last_timestep

    @property
    def of_images(self) -> bool:
        """Whether the process itself is made from the power of the training images."""
        return self.snr_tilt is not None or (self.family == "shaped-noise" and self.noise_shape == "data")


@dataclass(frozen=True)
class NetworkConfig(Section):
    """The U-Net. The defaults are the paper's: 121,060,483 parameters."""

    channels: int = key(128, integer(1), "width at full resolution; `n_groups` divides it")
    multipliers: list[int] = key(
        [1, 2, 3, 4],
        list_of(integer(1), empty=False),
        "width of each level in units of `channels`; each level halves the resolution, which must allow it",
    )
    n_res_blocks: int = key(3, integer(1), "residual blocks per level")
    attention_resolutions: list[int] = key(
        [16, 8],
        list_of(integer(1), unique=True),
        "sizes of feature maps, in pixels, at which there is self-attention (there always is in the middle)",
    )
    n_heads: int = key(4, integer(1), "attention heads; they divide the widths with attention")
    n_groups: int = key(32, integer(1), "groups of GroupNorm; they divide every width")
    dropout: float = key(0.0, number(minimum=0, exclusiveMaximum=1), "")


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How a model is trained."""

    # The length is in the store's file names: a longer training goes on from a shorter one.
    iterations: int = key(REQUIRED, integer(1), "optimizer steps")
    batch_size: int = key(16, integer(1), "images per step, of all GPUs together; divisible by `gpus` × `nodes`")
    micro_batch_size: int | None = key(
        None,
        nullable(integer(1)),
        "images that go through the network at once (null: all); it divides a GPU's share of `batch_size`. Less needs"
        " less memory, and the gradients are added up to the same step",
        how=True,
    )
    learning_rate: float = key(5e-5, number(exclusiveMinimum=0, maximum=1), "Adam's")
    learning_rate_schedule: str = key(
        "constant",
        one_of("constant", "cosine"),
        "`cosine`: down to 0 at `iterations`, which then decide the weights: a longer training starts anew",
    )
    warmup: int = key(0, integer(0), "iterations in which the learning rate rises from 0, linearly")
    max_gradient_norm: float | None = key(
        None, nullable(number(exclusiveMinimum=0)), "gradients of a larger norm are scaled down to it (null: never)"
    )
    ema_decay: float = key(
        0.9999,
        number(minimum=0, exclusiveMaximum=1),
        "of the averaged weights that samples are drawn with; its memory of 1/(1 − decay) steps should be short against"
        " `iterations`",
    )
    checkpoint_every: int = key(1000, integer(1), "iterations; what a killed job loses at most", how=True)
    log_every: int = key(100, integer(1), "iterations per row of history.csv", how=True)
    precision: str = key(
        "fp32",
        PRECISION,
        "of the network; `fp32` is full float32 on a GPU too, not TF32; on a CPU `bf16` is much slower where the"
        " processor does not multiply it, and else of use for sampling alone"
        " ([docs/performance.md](../docs/performance.md))",
    )
    compile: bool | None = key(
        None,
        nullable(TRUTH),
        "torch.compile of process, network and loss, replayed as CUDA graphs (null: with `cuda`); needs a C compiler,"
        " and falls back to the plain way with a warning. On a CPU it does not pay",
        how=True,
    )
    data_on_device: bool | None = key(
        None,
        nullable(TRUTH),
        "keep the whole data set in GPU memory, 12 KB per image of 64×64 pixels (null: if it takes no more than half of"
        " what is free); otherwise batches are read ahead. No effect on a CPU",
        how=True,
    )
    device: str = key("cpu", DEVICE, "", how=True)
    gpus: int = key(
        1, integer(1, 64), "GPUs per node that train one model together (with `device: cpu`, processes)", how=True
    )
    nodes: int = key(1, integer(1, 1024), "machines that train one model together", how=True)
    threads: int = key(1, THREADS, "CPU threads per job (on each node)", how=True)


@dataclass(frozen=True)
class SamplerConfig(Section):
    """How samples are drawn from a model; a run may override each of these."""

    sampler: str = key("reverse-diffusion", one_of(*SAMPLERS), "the paper's is the default")
    n_steps: int | None = key(None, nullable(integer(1)), "at most `n_timesteps` (null: all)")
    grid: str = key(
        "uniform",
        one_of(*GRIDS),
        "where fewer steps than N lie: evenly; dense near the image; where the modes' SNR crosses 1; where the modes"
        " lose information",
    )
    noise_free_steps: int = key(
        2,
        integer(0),
        "last steps without noise (`reverse-diffusion`), at most `n_steps`; the paper's text says 0, the authors' code"
        " does 2",
    )
    eta: float = key(0.0, number(minimum=0, maximum=1), "noise of `ddim`")
    start: str = key(
        "noise",
        one_of("noise", "prior"),
        "white noise, or what the prior of the images becomes at the last timestep: of models that have one, those with"
        " `prediction: gaussian` or a process made from the images' power",
    )
    strip_x0: str = key(
        "exact",
        one_of("exact", "released"),
        "predictions of x_0 in strips: exact, or as in the authors' code, where they stay blurred",
    )


@dataclass(frozen=True)
class SamplingConfig(SamplerConfig):
    """How many samples are drawn, and how."""

    n_samples: int = key(10_000, integer(2), "samples per run and seed; more of them add shards, and the others stay")
    shard_size: int = key(500, integer(1), "samples per job; a killed job loses its shard")
    batch_size: int | None = key(
        None,
        nullable(integer(1)),
        "images that go through the network at once (null: a shard); a matter of memory",
        how=True,
    )
    n_strip: int = key(8, integer(1), "samples whose way is kept for `figure1` and `animation`, at most `shard_size`")
    n_snapshots: int = key(
        11, integer(2), "states kept of each, at most `n_steps` + 1; `animation` shows all, `figure1` about eleven"
    )
    precision: str = key("fp32", PRECISION, "as in `training`")
    compile: bool | None = key(None, nullable(TRUTH), "as in `training`, but of the network alone", how=True)
    device: str = key("cpu", DEVICE, "", how=True)
    threads: int = key(1, THREADS, "CPU threads per job", how=True)


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """How samples are compared with real images."""

    network: str = key(
        "inception",
        one_of("inception", "efficientnet-lite0"),
        "features: of pytorch-fid's Inception (then the distance is FID), or of EfficientNet-Lite0, whose weights come"
        " with its package (then it is called FD-EfficientNet-Lite0)",
    )
    weights: str | None = key(
        None, nullable(PATH), "path of pytorch-fid's weights (null: pytorch-fid downloads them on first use)"
    )
    batch_size: int = key(64, integer(1), "images at once", how=True)
    floor_repeats: int = key(3, integer(1), "how often the real-against-real floor is drawn")
    device: str = key("cpu", DEVICE, "", how=True)
    threads: int = key(1, THREADS, "CPU threads per job", how=True)


@dataclass(frozen=True)
class DatasetConfig(Section):
    """A data set: give one source of images, which are the keys marked as a `source`."""

    synthetic: str | None = key(
        None,
        nullable(one_of("bedroom", "church")),
        "draw images by program and write them as an LSUN-format LMDB",
        source=True,
    )
    n_images: int | None = key(None, nullable(integer(2, 10_000_000)), "how many to draw (synthetic only; null: 2048)")
    seed: int | None = key(None, nullable(SEED), "of the drawing (synthetic only; null: 0)")
    lmdb: str | None = key(
        None, nullable(PATH), "folder of an LSUN-format LMDB: keys of 40 hex digits, values encoded images", source=True
    )
    folder: str | None = key(
        None,
        nullable(PATH),
        "folder of pictures, with all folders below it, in any mix of formats; see below",
        source=True,
    )
    zip: str | None = key(
        None,
        nullable(PATH),
        "zip of pictures, as EDM's and StyleGAN's dataset tools write it, or any other; it is not unpacked",
        source=True,
    )
    download: str | None = key(
        None,
        nullable(TEXT),
        "where to get the zip of a missing `lmdb` (null: nowhere): `lsun`, from LSUN's site by the folder's name"
        " (`church_outdoor_train_lmdb`), or from this http(s) address; see below",
    )
    download_digest: str | None = key(
        None, nullable(TEXT), "SHA-256 (64 hex digits) or MD5 (32) of that zip; of four of LSUN's they are known"
    )
    max_images: int | None = key(None, nullable(integer(2)), "read only the first so many pictures (null: all)")
    max_corrupt_fraction: float = key(
        0.001,
        number(minimum=0, maximum=1),
        "give up if more records than this do not decode; others are skipped and listed",
    )
    crop: str | None = key(
        None,
        nullable(one_of("center")),
        "`center`: only the largest square in the middle of each picture; null: the whole picture, squashed to a square"
        " as in the paper",
    )
    parts: int = key(
        1,
        integer(1, 10_000),
        "jobs that share the decoding and resizing of the images, for a cluster; see below",
    )
    label: str | None = key(
        None, nullable(TEXT), "how tables and figures call it (null: its name); synthetic sets are always called so"
    )


SOURCES = tuple(field.name for field in dataclasses.fields(DatasetConfig) if field.metadata.get("source"))


@dataclass(frozen=True)
class StudyConfig(Section):
    """Distance against the number of network evaluations, for several samplers."""

    runs: list[str] = key([], list_of({"type": "string"}, unique=True), "whose models to sample from")
    samplers: list[dict] = key(
        [
            {"sampler": "reverse-diffusion"},
            {"sampler": "ancestral"},
            {"sampler": "ddim"},
            {"sampler": "ddim", "grid": "information"},
            {"sampler": "ode-heun"},
        ],
        {},  # sections of SamplerConfig's keys; schema.py fills it in
        "each with `sampler` and, if wanted, `grid`, `eta`, `noise_free_steps`",
    )
    n_steps: list[int] = key(
        [10, 25, 50], list_of(integer(1), empty=False, unique=True), "numbers of steps to try with each sampler"
    )
    n_samples: int = key(1000, integer(2), "images per sampler and number of steps")
    seeds: str = key(
        "first",
        one_of("first", "all"),
        "of each run: the model of the first seed, or those of all seeds, for intervals in `differences.csv`",
    )


@dataclass(frozen=True)
class Settings(Section):
    """The resolved settings of one run and seed: what every stage is given."""

    run: str
    dataset: str
    label: str
    synthetic: bool
    seed: int
    resolution: int
    process: ProcessConfig
    network: NetworkConfig
    training: TrainingConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig

    @property
    def n_steps(self) -> int:
        """How many steps sampling takes."""
        return self.sampling.n_steps or self.process.last_timestep

    def as_dict(self) -> dict:
        """The same as plain dicts, for JSON."""
        return dataclasses.asdict(self)


SECTIONS: dict[str, type[Section]] = {
    "process": ProcessConfig,
    "network": NetworkConfig,
    "training": TrainingConfig,
    "sampling": SamplingConfig,
    "evaluation": EvaluationConfig,
}


def settings_from(value: dict) -> Settings:
    """Settings from a complete dict: `sampling.n_steps` null becomes all steps, and a batch no larger than a shard."""
    sections: dict[str, Any] = {name: section(**value[name]) for name, section in SECTIONS.items()}
    sampling: SamplingConfig = sections["sampling"]
    sections["sampling"] = dataclasses.replace(
        sampling,
        n_steps=sampling.n_steps or sections["process"].last_timestep,
        batch_size=min(sampling.batch_size or sampling.shard_size, sampling.shard_size),
    )
    return Settings(**{**value, **sections})


def with_keys(settings: Settings, section: str, **keys: object) -> Settings:
    """The settings with some keys of a section changed."""
    changed = dataclasses.replace(getattr(settings, section), **keys)
    return dataclasses.replace(settings, **{section: changed})
