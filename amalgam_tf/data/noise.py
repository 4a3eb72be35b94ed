"""Images of pure noise: the baseline that shows what a student learns without any image (DGAN table 1, spec G17)."""

import numpy as np

from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError

MEAN, STD = 127.5, 64.0  # of `centred` images, on which values are N(0, 1); nearly so on those normalised by ImageNet's mean and std


def load(*, split: str, count: int, size: int, seed: int) -> Examples:
    """Unlabelled images whose pixels are drawn one by one, each colour from N(127.5, 64), rounded and cut off at 0 and 255 (4.6 % are).

    Args:
        split: for the name, and part of the seed: splits differ.
        count: how many images.
        size: side in pixels.
        seed: at least 0; image i is a function of (seed, split, i).

    Raises:
        UserError: no images, no pixels, or a negative seed.
    """
    if count < 1 or size < 1 or seed < 0:
        raise UserError(
            f"noise needs data.train_count={count} and data.render_size={size} of at least 1 and data.scene_seed={seed} of at least 0"
        )
    letters = [seed, *split.encode()]
    images = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        drawn = np.random.default_rng([*letters, i]).standard_normal((size, size, 3), np.float32)
        images[i] = np.clip(np.round(MEAN + STD * drawn), 0, 255)
    return Examples(f"noise/{split}", tuple(f"noise{seed}_{i}" for i in range(count)), images, (), {})
