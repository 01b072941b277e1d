import numpy as np
import pytest
from PIL import Image

from data_prep import resize as resize_module
from data_prep.resize import RESIZER, resize
from tests.photographs import colorful


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 48), (301, 233), (640, 480)])
def test_it_is_lanczos_as_pillow_has_it(mode: str, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    for picture in (Image.fromarray(noise).convert(mode), colorful(320, 240).convert(mode)):
        resized = resize(picture, size)
        assert (resized.mode, resized.size) == (mode, size)
        expected = np.asarray(picture.resize(size, Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(np.asarray(resized) - expected).mean() < 1


def test_without_the_library_it_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize_module, "RESIZER", "pillow")
    picture = colorful(320, 240)
    assert resize(picture, (64, 48)) == picture.resize((64, 48), Image.Resampling.LANCZOS)


def test_bits_do_not_depend_on_the_processor() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    here = [resize(picture, size) for size in [(381, 286), (900, 675)]]
    if RESIZER == "cykooz":
        from cykooz_resizer import CpuExtensions

        before = resize_module._RESIZER.cpu_extensions
        resize_module._RESIZER.cpu_extensions = CpuExtensions.none
        try:
            assert here == [resize(picture, size) for size in [(381, 286), (900, 675)]]
        finally:
            resize_module._RESIZER.cpu_extensions = before
