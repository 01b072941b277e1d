"""Entry points, a few lines each; in what is installed they are the package pix2pix.scripts."""
