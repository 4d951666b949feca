import io

import numpy as np
import pytest
import torch
from torchvision.utils import save_image

from blurdiff.data.images import batch_indices, epoch_order, to_model_range, to_uint8
from blurdiff.errors import UserError
from blurdiff.runtime.arrays import open_images


@pytest.fixture
def stored(tmp_path):
    (tmp_path / "images.npy").write_bytes(WHOLE)
    (tmp_path / "manifest.json").write_text('{"n_used": 9, "resolution": 8}')
    return tmp_path / "images.npy", IMAGES


def test_images_are_mapped_not_read(stored):
    path, images = stored
    mapped = open_images(path, 8)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, images)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0, 0, 0, 0] = 1


def test_a_manifest_is_not_needed(stored):
    path, images = stored
    path.with_name("manifest.json").unlink()
    assert np.array_equal(open_images(path), images)


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


IMAGES = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
WHOLE = saved(IMAGES)
# The manifest, the array's file, and why that is refused; None: as they should be.
REFUSED = [
    *((manifest, None, r"manifest\.json .*(again|give the manifest)") for manifest in (
        '{"n_used": 8, "resolution": 8}', '{"n_used": 9, "resolution": 16}', "[]", "{}")),
    *((None, content, "truncated") for content in (WHOLE[:-1], WHOLE[: len(WHOLE) // 2], WHOLE + b"x")),
    *((None, content, "not an npy array") for content in (
        b"", b"\x93NUMPY", b"PK\x03\x04 not an npy file", b"\x93NUMPY\x01\x00\x10\x00{'descr': ")),
    *((None, saved(array), "not images") for array in (
        IMAGES.astype(np.float32), IMAGES[..., 0], IMAGES[:, :, :6], IMAGES.transpose(0, 3, 1, 2), IMAGES[:0],
        np.asfortranarray(IMAGES), np.array([None]))),
]  # fmt: skip


@pytest.mark.parametrize(("manifest", "content", "match"), REFUSED)
def test_what_is_not_as_it_should_be_is_refused(stored, manifest, content, match):
    path, _ = stored
    if manifest is not None:
        path.with_name("manifest.json").write_text(manifest)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=match):
        open_images(path)


def test_another_resolution_and_a_missing_file_are_refused(stored):
    with pytest.raises(UserError, match="8 x 8, not 64 x 64"):
        open_images(stored[0], 64)
    stored[0].unlink()
    with pytest.raises(UserError, match="No such file.*preprocess"):
        open_images(stored[0])


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (10, 5), (7, 16), (1, 4), (100, 1)])
def test_every_image_is_used_once_an_epoch(n, batch_size):
    steps = 3 * n  # more than two epochs for each of the sizes
    order = np.concatenate([batch_indices(n, batch_size, step, seed=5) for step in range(steps)])
    assert len(order) == steps * batch_size
    for start in range(0, len(order) - n + 1, n):
        assert sorted(order[start : start + n]) == list(range(n))


def test_epochs_and_seeds_differ_and_are_shuffled():
    orders = [tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len({*orders, tuple(range(50))}) == 10


def test_a_batch_depends_on_its_number_alone():
    in_order = [batch_indices(11, 4, step, seed=1).tolist() for step in range(12)]
    epoch_order.cache_clear()
    backwards = [batch_indices(11, 4, step, seed=1).tolist() for step in reversed(range(12))]
    assert backwards[::-1] == in_order
    epoch_order.cache_clear()
    assert batch_indices(11, 4, 7, seed=1).tolist() == in_order[7]


def test_the_order_is_the_one_that_is_documented():
    """A change here would make old checkpoints resume into another order."""
    seed = int(np.random.SeedSequence((4, 3, 1)).generate_state(1, np.uint64)[0] >> 1)  # 4: the stream of orders
    expected = np.random.Generator(np.random.PCG64(seed)).permutation(8)
    assert batch_indices(8, 8, 1, seed=3).tolist() == expected.tolist()
    assert batch_indices(8, 4, 3, seed=3).tolist() == expected[4:].tolist()


def test_the_cached_order_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(5, 0, 0)[0] = 3


@pytest.mark.parametrize(("name", "low", "high"), [("unit", 0.0, 1.0), ("symmetric", -1.0, 1.0)])
def test_the_range_and_back(name, low, high):
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    x = to_model_range(pixels, name)
    assert x.shape == (1, 3, 16, 16)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    assert (x.min().item(), x.max().item()) == (low, high)
    expected = low + (high - low) * torch.arange(256, dtype=torch.float64) / 255
    assert torch.allclose(x[0, 1].flatten().double(), expected, atol=1e-7)
    back = to_uint8(x, name)
    assert back.is_contiguous()
    assert torch.equal(back, pixels)


def test_channels_keep_their_place():
    pixels = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = to_model_range(pixels, "unit")
    assert x[1, 2, 3, 0] == pixels[1, 3, 0, 2] / 255


def test_pixels_are_rounded_and_clamped_as_save_image_does(tmp_path):
    x = torch.linspace(-0.2, 1.2, 3 * 40 * 40).reshape(1, 3, 40, 40)
    save_image(x, tmp_path / "x.png")
    from PIL import Image

    assert np.array_equal(to_uint8(x, "unit")[0].numpy(), np.asarray(Image.open(tmp_path / "x.png")))
    assert np.array_equal(to_uint8(2 * x.double() - 1, "symmetric").numpy(), to_uint8(x.double(), "unit").numpy())


def test_an_unknown_range_names_the_key():
    with pytest.raises(UserError, match="process.range"):
        to_uint8(torch.zeros(1, 3, 2, 2), "bytes")
