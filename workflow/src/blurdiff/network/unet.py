"""The U-Net of the paper's appendix B (the ADM network of Dhariwal & Nichol, arXiv 2105.05233), sized by the config.

Input and output are image batches (B, C, R, R); the second input is the timestep i. With the paper's settings
(128 channels, multipliers 1, 2, 3, 4, three residual blocks a level, four heads at 16×16 and 8×8) it has 121,060,483
parameters.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding (B,) → (B, dim), float32: cosines, then sines, of wavelengths 2π to 2π·10,000 (and a zero
    if `dim` is odd)."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(10_000) / half))
    angles = timesteps.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim % 2))


def zero_init(module: nn.Module) -> nn.Module:
    """Set all parameters to zero, so that a residual branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ResBlock(nn.Module):
    """Two 3×3 convolutions; the timestep scales and shifts the second normalisation."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, n_groups: int, dropout: float):
        super().__init__()
        self.norm1 = nn.GroupNorm(n_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding_dim, 2 * out_channels)
        self.norm2 = nn.GroupNorm(n_groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.embedding(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Multi-head self-attention over all positions, with a residual connection."""

    def __init__(self, channels: int, n_heads: int, n_groups: int):
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.GroupNorm(n_groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(batch, height * width, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        tokens = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, height * width, channels)
        return x + self.out(tokens).transpose(1, 2).view(batch, channels, height, width)


class Level(nn.Module):
    """All that happens at one resolution: residual blocks, attention after each if wanted, then a change of size."""

    def __init__(self, blocks: list[ResBlock], attentions: list[nn.Module], resample: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.resample = resample


class UNet(nn.Module):
    """ε_θ(x_i, i): (B, C, R, R), (B,) → (B, C, R, R).

    Arguments: `channels`, the unit of width; `multipliers`, the width of each level in that unit (a level halves the
    resolution); `n_res_blocks` a level; `attention_resolutions` in pixels, 16 means where feature maps are 16×16;
    `n_heads` and `n_groups` (of GroupNorm) must divide the widths; `dropout` in [0, 1).
    """

    down: Any  # ModuleLists of Level, which their type does not say
    up: Any

    def __init__(
        self,
        resolution: int,
        channels: int,
        multipliers: list[int],
        n_res_blocks: int,
        attention_resolutions: list[int],
        n_heads: int,
        n_groups: int = 32,
        dropout: float = 0.0,
        image_channels: int = 3,
    ):
        super().__init__()
        self.embedding_dim = channels
        self.time_embedding = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels), nn.SiLU()
        )

        def block(in_channels: int, out_channels: int) -> ResBlock:
            return ResBlock(in_channels, out_channels, 4 * channels, n_groups, dropout)

        def attention(width: int, size: int) -> nn.Module:
            return Attention(width, n_heads, n_groups) if size in attention_resolutions else nn.Identity()

        widths = [channels * m for m in multipliers]
        sizes = [resolution >> level for level in range(len(widths))]
        deepest = len(widths) - 1
        width = widths[0]
        self.input_conv = nn.Conv2d(image_channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        skips = [width]
        for level, (out, size) in enumerate(zip(widths, sizes, strict=True)):
            blocks = [block(width if k == 0 else out, out) for k in range(n_res_blocks)]
            resample = nn.Identity() if level == deepest else nn.Conv2d(out, out, 3, stride=2, padding=1)
            self.down.append(Level(blocks, [attention(out, size) for _ in blocks], resample))
            skips += [out] * (n_res_blocks + (level != deepest))
            width = out
        self.middle = nn.ModuleList([block(width, width), Attention(width, n_heads, n_groups), block(width, width)])
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            blocks = []
            for _ in range(n_res_blocks + 1):
                blocks.append(block(width + skips.pop(), widths[level]))
                width = widths[level]
            resample = nn.Identity() if level == 0 else nn.Conv2d(width, width, 3, padding=1)
            self.up.append(Level(blocks, [attention(width, sizes[level]) for _ in blocks], resample))
        self.output_norm = nn.GroupNorm(n_groups, width)
        self.output_conv = zero_init(nn.Conv2d(width, image_channels, 3, padding=1))

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        embedding = self.time_embedding(timestep_embedding(timesteps, self.embedding_dim))
        h = self.input_conv(x)
        skips = [h]
        for index, level in enumerate(self.down):
            for block, attention in zip(level.blocks, level.attentions, strict=True):
                h = attention(block(h, embedding))
                skips.append(h)
            if index < len(self.down) - 1:
                h = level.resample(h)
                skips.append(h)
        first, attention, second = self.middle
        h = second(attention(first(h, embedding)), embedding)
        for index, level in enumerate(self.up):
            for block, attention in zip(level.blocks, level.attentions, strict=True):
                h = attention(block(torch.cat([h, skips.pop()], dim=1), embedding))
            if index < len(self.up) - 1:
                h = level.resample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.output_conv(F.silu(self.output_norm(h)))
