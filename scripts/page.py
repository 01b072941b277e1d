"""Serve a web page to try models: drop a photograph, compare, download.

python scripts/page.py --run_dir runs/first
"""

from dataclasses import dataclass
from pathlib import Path

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.errors import UserError


@dataclass(frozen=True)
class PageOptions:
    """The models and the address of the page."""

    run_dir: tuple[Path, ...] = option(
        help="a run, an exported folder, or owner/name on the hub; or several to choose from"
    )
    host: str = option(
        "127.0.0.1",
        help="address to serve at; 0.0.0.0 serves every machine that reaches this one",
        metavar="ADDRESS",
    )
    port: int = option(7860, help="port to serve at; 0 for any free port")
    root_path: str = option(
        "", help="where a web server in front of it shows the page", metavar="/PATH"
    )
    auth: Path | None = option(
        None, help="file of lines NAME:PASSWORD: who may see the page; none: anyone", metavar="FILE"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise UserError(f"--port {self.port}: give a number from 1 to 65535, or 0 for any")


def page(options: PageOptions) -> None:
    """Serve a web page that colors photographs, until Ctrl-C.

    Needs pip install -e '.[web]'. Without --auth, the page asks for no password.
    """
    from pix2pix.web.server import serve  # heavy: only when the work starts

    serve(options.run_dir, options.host, options.port, options.root_path, options.auth)


def command() -> None:
    """Run as `pix2pix-page` or as this file."""
    main(page, PageOptions)


if __name__ == "__main__":
    command()
