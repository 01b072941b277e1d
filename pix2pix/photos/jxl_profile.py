"""The ICC profile of a JPEG XL's samples, asked of the libjxl that imagecodecs brings.

The file holds it compressed, and imagecodecs gives the samples alone.
"""

import ctypes
from functools import cache
from typing import Any

_COLOR_ENCODING = 0x100  # JXL_DEC_COLOR_ENCODING of jxl/decode.h, an event and a status
_OF_SAMPLES = 1  # JXL_COLOR_PROFILE_TARGET_DATA: what the decoder's samples mean
_OLDEST = 9000  # version 0.9: since then these functions have these arguments
_MOST_BYTES = 2**26


def profile_by_libjxl(data: bytes) -> bytes | None:
    """Return the profile; None where libjxl cannot be asked, or finds none."""
    library = _library()
    if library is None:
        return None
    decoder = ctypes.c_void_p(library.JxlDecoderCreate(None))
    if not decoder:
        return None
    try:
        library.JxlDecoderSubscribeEvents(decoder, _COLOR_ENCODING)
        library.JxlDecoderSetInput(decoder, data, ctypes.c_size_t(len(data)))
        library.JxlDecoderCloseInput(decoder)
        size = ctypes.c_size_t()
        if library.JxlDecoderProcessInput(decoder) != _COLOR_ENCODING:
            return None
        if library.JxlDecoderGetICCProfileSize(decoder, _OF_SAMPLES, ctypes.byref(size)):
            return None
        if not 0 < size.value <= _MOST_BYTES:
            return None
        profile = ctypes.create_string_buffer(size.value)
        if library.JxlDecoderGetColorAsICCProfile(decoder, _OF_SAMPLES, profile, size):
            return None
        return profile.raw
    finally:
        library.JxlDecoderDestroy(decoder)


@cache
def _library() -> Any:
    """Return libjxl; None where it is too old, or where its functions are not to be found.

    A module's handle finds the functions of the libraries that it is linked with.
    """
    try:
        from imagecodecs import _jpegxl

        library = ctypes.CDLL(_jpegxl.__file__)
        library.JxlDecoderCreate.restype = ctypes.c_void_p
        return library if library.JxlDecoderVersion() >= _OLDEST else None
    except (ImportError, OSError, AttributeError):
        return None
