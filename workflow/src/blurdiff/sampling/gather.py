"""Put shards of samples together: samples.npz (arr_0, uint8 NHWC, as ADM's evaluations read it) and strips.npz.

The shards must be whole and of one size; of the last one only as many images are taken as are wanted. strips.npz holds
`timesteps`, `x` and `x0` of the first shard.
"""

from pathlib import Path

from blurdiff.errors import UserError


def read_shard(path: str | Path) -> dict:
    """The arrays of a shard; UserError when the file is damaged or is no shard."""
    import numpy as np

    from blurdiff.runtime.files import check_archive

    try:
        with np.load(path, allow_pickle=False) as file:
            check_archive(file)
            arrays = dict(file)
    except Exception as error:  # a damaged file can raise almost anything, a TokenError for one
        raise UserError(f"{path} is not a whole shard ({error}); delete it and run again") from error
    missing = {"arr_0", "strip_timesteps", "strip_x", "strip_x0"} - arrays.keys()
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; it is not a shard of samples")
    return arrays
