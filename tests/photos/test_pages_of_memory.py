"""Memory that is given back while the rest of an array is read."""

import numpy as np
import psutil

from pix2pix.photos.deep import open_deep_png
from pix2pix.photos.pages_of_memory import forget
from tests.photos.test_png_chunks import PROFILE, insert_chunks, ramps

MEGABYTES = 2**20


def test_rows_that_are_forgotten_take_no_memory_and_others_stay() -> None:
    pixels = np.full((64, 1024, 1024), 7, np.uint8)
    before = psutil.Process().memory_info().rss
    forget(pixels[:48])
    assert before - psutil.Process().memory_info().rss > 40 * MEGABYTES
    assert (pixels[48:] == 7).all()


def test_memory_of_others_is_left_alone() -> None:
    data = b"\7" * (4 * MEGABYTES)
    forget(np.frombuffer(data, np.uint8))
    assert data.count(7) == len(data)


def test_a_picture_is_read_twice_alike() -> None:
    import imagecodecs

    samples = ramps(600, 2000, 3, 16)
    data = insert_chunks(bytes(imagecodecs.png_encode(samples)), PROFILE)
    picture = open_deep_png(data, 10**7)
    first, second = (np.concatenate(list(picture.rows(0))) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == samples.shape
