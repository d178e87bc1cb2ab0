"""What scikit-image finds for the structural similarity of `ounce_eval::ssim`, on small images of several kinds.

Writes `ssim.json`. Install: `pip install numpy==2.* scikit-image==0.25.*`. Run: `python tests/golden/ssim.py`.
"""

import json
import pathlib

import numpy as np
from skimage.metrics import structural_similarity

rng = np.random.default_rng(42)


def drawing(height, width):
    y, x = np.mgrid[:height, :width]
    return np.clip(1.5 * (4.0 - np.hypot(x - width * 0.45, y - height * 0.55)), -1, 1)


def case(a, b, span):
    # The stored digits are what is compared.
    a, b = (np.round(image, 4).astype(np.float32).astype(np.float64) for image in (a, b))
    flat = lambda image: [float(f"{value:.4f}") for value in image.ravel()]
    similarity = lambda **options: float(structural_similarity(a, b, data_range=span, **options))
    return dict(
        width=a.shape[1],
        range=span,
        a=flat(a),
        b=flat(b),
        uniform=similarity(),
        small=similarity(win_size=3),
        gaussian=similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
    )


glyph = drawing(12, 14)
cases = [
    case(glyph, glyph + rng.normal(0, 0.1, glyph.shape), 2.0),
    case(glyph, np.roll(glyph, 2, 1), 2.0),
    case(rng.random((13, 11)), rng.random((13, 11)), 1.0),
    case(255 * rng.random((12, 12)), 255 * np.ones((12, 12)) * 0.5, 255.0),
]
path = pathlib.Path(__file__).with_name("ssim.json")
path.write_text(json.dumps(cases) + "\n")
