"""Color profiles: pictures to sRGB, at 8 bits by Pillow's littlecms, at 16 by imagecodecs'.

Relative colorimetric with black point compensation, as picture editors convert: neutral stays
neutral, and a print's black becomes black.
"""

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
# Without its cache a transform may be used by several threads at once.
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE
_SPACES = {"L": (b"GRAY", b"RGB "), "RGB": (b"RGB ",), "CMYK": (b"CMYK",), "LAB": (b"Lab ",)}

# Of 255 on the gray axis: within it a profile may be applied before a resize or after it. Adobe RGB
# has 9, gamma 1.8 has 19, linear light 100.
_NEAR_CURVE = 24

RowsToSRGB = Callable[[np.ndarray], np.ndarray]


class BrokenProfileError(ValueError):
    """A profile that cannot be read, or is of other colors than the picture."""


def picture_to_srgb(photo: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture of 8 bits in sRGB: "L" and "LA" stay, "CMYK" and "LAB" become "RGB".

    Args:
        photo: mode "L", "LA", "RGB", "RGBA", "CMYK" or "LAB"; it may be changed in place.
        profile: the ICC profile that its numbers mean.

    Raises:
        BrokenProfileError: the picture has to be taken without its profile.
    """
    if photo.mode in ("L", "LA"):
        table = _gray_table(profile)
        if table is None:
            return photo
        bands = [photo.getchannel(0).point(table), *photo.split()[1:]]
        return Image.merge(photo.mode, bands)
    source, target = ("RGBA", "RGBA") if photo.mode == "RGBA" else (photo.mode, "RGB")
    transform = _transform(profile, source, target)
    if transform is None:
        return photo
    if source == target:
        ImageCms.applyTransform(photo, transform, inPlace=True)
        return photo
    converted = ImageCms.applyTransform(photo, transform)
    assert converted is not None
    return converted


@lru_cache(64)
def may_follow_a_resize(profile: bytes, mode: str) -> bool:
    """Return True if colors change little whether they are converted before a resize or after it.

    Resizing takes means of stored values: the means of light are others where the profile's curve
    is far from that of sRGB.

    Args:
        profile: an ICC profile.
        mode: of the picture; True for "L" and "RGB" only.
    """
    if mode not in ("L", "RGB"):
        return False
    ramp = np.arange(256, dtype=np.uint8)[None]
    try:
        seen = picture_to_srgb(Image.fromarray(ramp).convert(mode), profile)
    except BrokenProfileError:
        return False  # who converts it now will say so
    return bool(np.abs(np.asarray(seen.convert("L")).astype(int) - ramp).max() <= _NEAR_CURVE)


def rows_to_srgb(profile: bytes, channels: int) -> RowsToSRGB:
    """Return the function that takes rows of 16 bits, [rows, W] or [rows, W, 3|4], to sRGB.

    Args:
        profile: the ICC profile that the numbers mean.
        channels: 1 (gray), 3 (RGB) or 4 (CMYK, to RGB).

    Raises:
        BrokenProfileError: the picture has to be taken without its profile.
    """
    if channels == 1:
        table = _deep_gray_table(profile)
        return lambda rows: table[rows]
    mode = "RGB" if channels == 3 else "CMYK"
    _check_space(profile, mode)
    colorspace = mode.lower()
    _deep(np.zeros((1, 1, channels), np.uint16), profile, colorspace)  # raises now, not later
    return lambda rows: _deep(rows, profile, colorspace)


def _check_space(profile: bytes, mode: str) -> bytes:
    """Return the space of a profile's numbers, which must fit pictures of this mode."""
    space = profile[16:20]
    if len(profile) < 132 or profile[36:40] != b"acsp" or space not in _SPACES[mode]:
        raise BrokenProfileError(f"no profile for {mode}")
    return space


@lru_cache(64)
def _transform(profile: bytes, source: str, target: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform to sRGB; None where it changes no color by more than 1 of 255."""
    _check_space(profile, source.removesuffix("A"))
    transform = _build(profile, source, target)
    if source in ("RGB", "RGBA"):
        corners = np.stack(np.meshgrid(*[np.arange(0, 256, 17, dtype=np.uint8)] * 3), -1)
        grid = Image.fromarray(corners.reshape(16, -1, 3)).convert(source)
        after = ImageCms.applyTransform(grid, transform)
        if np.abs(np.asarray(grid).astype(int) - np.asarray(after).astype(int)).max() <= 1:
            return None
    return transform


def _build(
    profile: bytes, source: str, target: str, flags: ImageCms.Flags = _FLAGS
) -> ImageCms.ImageCmsTransform:
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(opened, srgb, source, target, _INTENT, flags)
    except Exception as error:  # littlecms, through Pillow, raises several types
        raise BrokenProfileError(str(error)) from error


@lru_cache(64)
def _gray_table(profile: bytes) -> list[int] | None:
    """Return the 256 levels in sRGB; None where none differs by more than 1.

    A gray picture with a profile of RGB, as many are saved, is one of R = G = B.
    """
    mode = "L" if _check_space(profile, "L") == b"GRAY" else "RGB"
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(mode)
    # Optimized, littlecms halves the light of a linear gray's darkest levels (measured).
    transform = _build(profile, mode, "RGB", _FLAGS | ImageCms.Flags.NOOPTIMIZE)
    levels = ImageCms.applyTransform(ramp, transform)
    assert levels is not None
    table = np.asarray(levels.convert("L"))[0]
    if np.abs(table.astype(int) - np.arange(256)).max() <= 1:
        return None
    return [int(level) for level in table]


@lru_cache(2)
def _deep_gray_table(profile: bytes) -> np.ndarray:
    """Return the 65,536 levels in sRGB: [65536] uint16."""
    space = _check_space(profile, "L")
    ramp = np.arange(65536, dtype=np.uint16)[None]
    if space == b"GRAY":
        return _deep(ramp, profile, "gray")[0, :, 1]
    return _deep(np.repeat(ramp[..., None], 3, axis=2), profile, "rgb")[0, :, 1]


def _deep(rows: np.ndarray, profile: bytes, colorspace: str) -> np.ndarray:
    """[rows, W] or [rows, W, 3|4] uint16 → sRGB [rows, W, 3] uint16."""
    import imagecodecs

    cms: Any = imagecodecs.CMS
    # Optimized, littlecms takes 16 bits through a coarse table: up to 13 of 255 off near the edge
    # of sRGB (measured on Adobe RGB).
    flags = cms.FLAGS.BLACKPOINTCOMPENSATION | cms.FLAGS.NOOPTIMIZE
    try:
        return imagecodecs.cms_transform(
            np.ascontiguousarray(rows),
            profile,
            imagecodecs.cms_profile("srgb"),
            colorspace=colorspace,
            outcolorspace="rgb",
            outdtype="uint16",
            intent=cms.INTENT.RELATIVE_COLORIMETRIC,
            flags=flags,
        )
    except Exception as error:
        raise BrokenProfileError(str(error)) from error
