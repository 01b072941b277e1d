"""The contrast of faded prints: which a gray picture has, and how it is restored (no torch)."""

from itertools import accumulate

from PIL import Image

_SHARE_CUT = 0.005  # at each end, for specks of dust and the corners of a frame
# Of 255. Of the photographs that networks learn from, about 2 in 100 have less.
_FADED_SPAN = 150
# Within so few levels there is no picture to restore, only noise.
_EMPTY_SPAN = 16


def is_faded(gray: Image.Image) -> bool:
    """Whether a picture of mode "L" has less contrast than photographs have; not if it has none."""
    black, white = black_and_white(gray)
    return _EMPTY_SPAN <= white - black < _FADED_SPAN


def stretch_contrast(gray: Image.Image) -> Image.Image:
    """A picture of mode "L" from black to white; one that is all but empty stays as it is."""
    black, white = black_and_white(gray)
    if white - black < _EMPTY_SPAN:
        return gray
    gain = 255 / (white - black)
    return gray.point([min(255, max(0, round((level - black) * gain))) for level in range(256)])


def black_and_white(gray: Image.Image) -> tuple[int, int]:
    """The levels of mode "L" below and above which lie 0.5 % of the pixels each."""
    counts = gray.histogram()
    cut = _SHARE_CUT * sum(counts)
    black = next(level for level, count in enumerate(accumulate(counts)) if count > cut)
    above = next(level for level, count in enumerate(accumulate(counts[::-1])) if count > cut)
    return black, 255 - above
