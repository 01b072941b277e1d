"""Prove and measure this machine's GPU: python scripts/gpu.py [--part step], or `make gpu`."""

from pix2pix.cli.command_line import main
from pix2pix.gpu.options import GpuOptions
from pix2pix.gpu.prove import prove
from pix2pix.gpu.sections import Trial


def gpu(options: GpuOptions) -> int:
    """Run the tests that need a GPU, then the benchmarks, and write out/gpu/report.md.

    Each section runs for a bounded time, and is written as it ends. Takes nine minutes at most.
    Exit status: 0, 1 if a section failed or ran out of time, 3 if there is no GPU.
    """
    photos = str(options.photos) if options.photos else None
    return prove(Trial(photos=photos), options.out, options.part)


def command() -> None:
    """Run `pix2pix-gpu`, and this file."""
    main(gpu, GpuOptions)


if __name__ == "__main__":
    command()
