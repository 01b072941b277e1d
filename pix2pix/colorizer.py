"""Old import path of `Colorizer`, which published model cards use."""

from pix2pix.colorizing.colorizer import Colorizer as Colorizer
