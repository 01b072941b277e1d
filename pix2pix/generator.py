"""Old address of `Generator`, named by model cards that are already published."""

from pix2pix.export.generator import Generator as Generator
