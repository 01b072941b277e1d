"""Kill a training again and again, and check that it loses nothing: make chaos KILLS=20."""

from pix2pix.cli.command_line import main
from tests.chaos.options import ChaosOptions


def chaos(options: ChaosOptions) -> int:
    """Kills a training with SIGKILL again and again, restarts it, and checks every promise.

    Exit status 0 only if all were kept. Runs on the CPU, under Linux.
    """
    from tests.chaos.chaos import chaos  # heavy: only when the work starts

    return chaos(options)


if __name__ == "__main__":
    main(chaos, ChaosOptions)
