"""Old import path of `Generator`, which published model cards use."""

from pix2pix.export.generator import Generator as Generator
