"""A web page to try a model on: drop a photograph, compare gray and colored, download it.

What may be asked of the server, and how it starts and ends, is told in `server.py`. Needs the
package of the extra `[web]`, Gradio, which is imported when the page is made.
"""

import importlib.util
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.photos import COLOR_PHOTOS, GRAY_PHOTOS
from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.errors import UserError
from pix2pix.photos.kinds import EXTENSIONS
from pix2pix.photos.photo import luma, open_photo
from pix2pix.web.results import color_upload

if TYPE_CHECKING:
    import gradio as gr

MAX_BYTES = 50 * 2**20
# One is colored at a time: the last in the queue waits 3 minutes at worst.
MAX_WAITING = 16
MAX_SATURATION = 2.0
# What was uploaded and what was made of it stays an hour: people come back to a page.
DELETE_EVERY_SECONDS, DELETE_AFTER_SECONDS = 300, 3600

EXAMPLES = ("astronaut", "chelsea", "coffee", "camera")  # public domain or CC0

TITLE = "Color a photograph"
LABEL = "Download"
PROBLEM = "What could not be done"
INTRODUCTION = (
    "Drop photographs: their light and detail stay, their colors are painted anew. "
    "They are deleted after an hour."
)
CSS = """
.gradio-container { max-width: 60rem !important; margin: 0 auto !important; }
footer { display: none !important; }
:has(> .gallery-item) {
  display: grid !important; grid-template-columns: repeat(4, minmax(0, 5rem));
}
.gallery-item .gallery { width: 100% !important; height: auto !important; aspect-ratio: 1; }
"""


def require_gradio() -> None:
    """Raise UserError unless Gradio is installed."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio, not installed here: pip install -e '.[web]'")


def load_models(sources: Sequence[Path]) -> dict[str, Colorizer]:
    """Colorizers by the name that the page shows: the last parts of their paths that differ.

    sources: as `Colorizer.from_path` takes them; raises UserError as it does.
    """
    paths = {Path(os.path.abspath(source)): source for source in sources}
    for depth in count(1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return {
        name: Colorizer.from_path(source)
        for name, source in zip(names, paths.values(), strict=True)
    }


def make_page(models: dict[str, Colorizer], folder: Path) -> "gr.Blocks":
    """Return the page, which offers these models.

    folder: for uploads and results, and all that the server may show of its disk; it must be the
        `GRADIO_TEMP_DIR` of the process.
    """
    import gradio as gr

    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        delete_cache=(DELETE_EVERY_SECONDS, DELETE_AFTER_SECONDS),
    ) as page:
        gr.Markdown(f"# {TITLE}\n{INTRODUCTION}")
        photo = _add_photo_row(write_examples(folder / "examples"))
        problem = gr.Textbox(label=PROBLEM, interactive=False, visible=False, max_lines=6)
        compared = gr.ImageSlider(
            show_label=False, interactive=False, max_height=640, buttons=["fullscreen"]
        )
        model, saturation, download = _add_settings_row(list(models))
        gr.on(
            [photo.change, model.change, saturation.change],
            partial(_answer, models, folder),
            [photo, model, saturation],
            [problem, compared, download],
            api_visibility="private",
            concurrency_limit=1,
            trigger_mode="always_last",
        )
    return page.queue(max_size=MAX_WAITING)


def _add_photo_row(examples: Sequence[Path]) -> "gr.File":
    """Add where photographs are dropped, and examples to click; returns the former."""
    import gradio as gr

    with gr.Row():
        photo = gr.File(
            label="Photographs",
            file_types=list(EXTENSIONS),
            file_count="multiple",
            height=140,
            min_width=300,
        )
        chosen = gr.Dataset(
            label="Or one of these",
            components=[gr.Image(visible=False)],
            samples=[[str(example)] for example in examples],
            type="index",
            min_width=300,
            visible=bool(examples),
        )
    chosen.click(lambda index: [str(examples[index])], chosen, photo, api_visibility="private")
    return photo


def _add_settings_row(models: list[str]) -> "tuple[gr.Dropdown, gr.Slider, gr.DownloadButton]":
    """Add the choice of a model where there are several, saturation, and the download's button."""
    import gradio as gr

    with gr.Row(equal_height=True):
        model = gr.Dropdown(models, label="Model", visible=len(models) > 1)
        saturation = gr.Slider(0, MAX_SATURATION, value=1, step=0.1, label="Saturation", buttons=[])
        download = gr.DownloadButton(LABEL, variant="primary", interactive=False)
    return model, saturation, download


def write_examples(folder: Path) -> list[Path]:
    """Write packaged photographs, in gray, as files; one that is not installed is left out."""
    folder.mkdir()
    files = []
    for example in (*COLOR_PHOTOS, *GRAY_PHOTOS):
        if example.name in EXAMPLES:
            with suppress(UserError):
                files.append(folder / example.path.with_suffix(".png").name)
                luma(open_photo(example.path)).save(files[-1])
    return files


def _answer(
    models: dict[str, Colorizer],
    folder: Path,
    photos: list[str] | None,
    model: str,
    saturation: float,
) -> "tuple[gr.Textbox, tuple[Path, Path] | None, gr.DownloadButton]":
    """Return what the page shows: problems or none, the pictures of the slider, the download.

    Of several photographs the first that could be colored is shown; all are in the download.
    """
    import gradio as gr

    problem = gr.Textbox(visible=False)
    button = gr.DownloadButton(LABEL, interactive=False)
    if not photos:  # they were taken away
        return problem, None, button
    result = color_upload(models[model], [Path(photo) for photo in photos], saturation, folder)
    if result.problems:
        problem = gr.Textbox("\n".join(result.problems), visible=True)
    if not result.colored:
        return problem, None, button
    first = result.colored[0]
    width, height = first.size
    many = len(result.colored)
    label = f"{LABEL} ({width} × {height})" if many == 1 else f"{LABEL} ({many} photographs)"
    button = gr.DownloadButton(label, value=result.download, interactive=True)
    return problem, (first.gray, first.colored), button
