"""What air, lens and sensor add to a picture."""

from __future__ import annotations

import cv2
import numpy as np

from dmnet.core.records import Image


def develop(image: Image, rng: np.random.Generator) -> Image:
    """Haze that grows upwards, softness, muted colours, contrast, white balance and noise."""
    hazy = _haze(image, rng.uniform(0.0, 0.16), np.array([188.0, 194.0, 200.0]))
    soft = cv2.GaussianBlur(hazy, (0, 0), rng.uniform(0.45, 0.75))
    keep, contrast, lift = rng.uniform(0.7, 0.95), rng.uniform(0.92, 1.1), rng.uniform(-10, 8)
    balance = rng.uniform(0.97, 1.03, 3)
    grey = np.tile(np.array([0.3, 0.59, 0.11]), (3, 1))
    matrix = contrast * balance[:, None] * (keep * np.eye(3) + (1 - keep) * grey)
    offset = 128 * balance * (1 - contrast) + lift
    toned = cv2.transform(soft, np.column_stack([matrix, offset]))
    return sensor_noise(toned, rng, rng.uniform(1.5, 4.0))


def _haze(image: Image, most: float, air: np.ndarray) -> Image:
    """Blend with the colour of air: ``most`` at the top, nothing at the bottom."""
    share = (most * np.linspace(1, 0, len(image)) ** 1.5)[:, None]
    table = np.arange(256)[None, :, None] * (1 - share[..., None]) + air * share[..., None]
    rows = np.arange(len(image))
    out = np.empty_like(image)
    levels = np.round(table).astype(np.uint8)
    for row in rows:
        out[row] = cv2.LUT(image[row : row + 1], levels[row : row + 1])[0]
    return out


def sensor_noise(image: Image, rng: np.random.Generator, sigma: float) -> Image:
    """Add noise from a repeated tile, part of it common to the three colours."""
    height, width = image.shape[:2]
    tile = rng.normal(0, sigma, (256, 256, 3)) + rng.normal(0, 0.6 * sigma, (256, 256, 1))
    again = (-(-height // 256), -(-width // 256), 1)
    noise = np.tile(np.round(tile).astype(np.int16), again)[:height, :width]
    return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), dtype=np.uint8)


def soften(image: Image, box: tuple[int, int, int, int], sigma: float) -> None:
    """Blur a window ``x1, y1, x2, y2`` in place, less towards its border."""
    x1, y1, x2, y2 = box
    part = image[max(y1, 0) : y2, max(x1, 0) : x2]
    if not part.size:
        return
    blurred = cv2.GaussianBlur(part, (0, 0), sigma)
    inner = np.zeros(part.shape[:2], dtype=np.uint8)
    inner[1:-1, 1:-1] = 255
    weight = cv2.GaussianBlur(inner, (0, 0), 0.5 * sigma)[..., None].astype(np.uint16)
    part[:] = (blurred * weight + part * (255 - weight)) // 255
