"""Old address of `Colorizer`, named by model cards that are already published."""

from pix2pix.colorizing.colorizer import Colorizer as Colorizer
