"""Entry points of a few lines. An installation has them as the package pix2pix.scripts."""
