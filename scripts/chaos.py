"""Kill a training again and again, and check that it loses nothing: make chaos KILLS=20.

Exit status: 0 every promise was kept, 1 one was not.
"""

from pix2pix.benchmark.chaos import ChaosOptions, chaos
from pix2pix.cli import main

if __name__ == "__main__":
    main(chaos, ChaosOptions)
