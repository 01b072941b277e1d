"""The processes that decode: a decoder that failed often is not asked for ever."""

import imagecodecs
import pytest

from pix2pix.photos import helper
from pix2pix.photos.helper import HelperPicture
from pix2pix.photos.photo import PhotoError, open_picture
from pix2pix.photos.picture import read_upright
from tests.photos.odd_files import ramps


def helper_of(data: bytes, reads: bool) -> int:
    """Open a picture in a helper, whose number is returned."""
    picture = open_picture(data, 10**6)
    assert isinstance(picture, HelperPicture)
    assert picture._helper is not None
    number = picture._helper._process.pid
    try:
        if reads:
            read_upright(picture, 0)
        else:
            with pytest.raises(PhotoError):
                read_upright(picture, 0)
    finally:
        picture.close()
    return number


def test_a_helper_ends_after_many_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """imagecodecs' PNG loses a reference to None each time: 10,000 would abort Python."""
    helper.stop_helpers()
    monkeypatch.setattr(helper, "_MOST_FAILURES", 3)
    whole = bytes(imagecodecs.png_encode(ramps(channels=3, depth=16)))
    at = whole.index(b"IDAT") + 40
    broken = whole[:at] + bytes(20) + whole[at + 20 :]
    first = {helper_of(whole, reads=True) for _ in range(4)}
    failed = {helper_of(broken, reads=False) for _ in range(3)}
    assert first == failed
    assert len(first) == 1
    assert helper_of(whole, reads=True) not in first
