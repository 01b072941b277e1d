"""pix2pix: a conditional GAN that colours black-and-white photographs.

Importing the package is light: torch is loaded by the rooms that compute, not here.
"""

__version__ = "0.1.0"
