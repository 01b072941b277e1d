"""A trained generator as a thing that colours photographs of any size."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pix2pix.checkpoint import load_generator, newest_checkpoint
from pix2pix.color import ColorSpace, lab_to_rgb, lightness
from pix2pix.generator import Generator
from pix2pix.photo import luma

# Colours are computed in float32, a strip of rows at a time: some 200 MB of working memory, however
# large the photograph.
STRIP_PIXELS = 2**20


class Colorizer:
    """Colours photographs with a generator that was trained at image_size × image_size px.

    The generator is moved to the device and put in evaluation mode. The same photograph gives the
    same colours every time.
    """

    def __init__(
        self,
        generator: nn.Module,
        color_space: ColorSpace,
        image_size: int,
        device: torch.device | str = "cpu",
    ):
        self.generator = generator.to(device).eval()
        self.color_space = color_space
        self.image_size = image_size
        self.device = torch.device(device)

    @classmethod
    def from_run(cls, run_dir: Path) -> "Colorizer":
        """The newest checkpoint of a training, averaged weights where it averages.

        On a GPU where there is one. Raises UserError where there is no run or no checkpoint.
        """
        generator, config, _ = load_generator(run_dir, newest_checkpoint(run_dir))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(generator, ColorSpace(config.color_space), config.image_size, device)

    @classmethod
    def from_path(cls, source: str | Path) -> "Colorizer":
        """A run (as `from_run`), an exported folder, or "owner/name" on the Hugging Face hub.

        On a GPU where there is one. Raises UserError for anything else, and for damaged files.
        """
        if (Path(source) / "checkpoints").is_dir():
            return cls.from_run(Path(source))
        generator = Generator.from_pretrained(source)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(generator, generator.color_space, generator.image_size, device)

    def colorize(self, photo: Image.Image) -> Image.Image:
        """Colour a photograph, upright and in mode "L" or "RGB", whose own colours are not seen.

        Returns mode "RGB" (sRGB) of exactly the same size. It keeps the photograph's lightness at
        full resolution, except where the colour at that lightness lies outside of sRGB; the
        network only gives the chroma, to which the eye is far less sharp.
        """
        gray = luma(photo)
        return self._join(gray, self.predict_chroma(gray))

    @torch.inference_mode()
    def predict_chroma(self, gray: Image.Image) -> Tensor:
        """The network's idea of a photograph: mode "L" → a and b of CIE Lab, [2, S, S].

        S is image_size: the photograph is squashed to a square, because the network was trained
        on squares and its bottom level sees all of one. Hue survives that (DeOldify renders the
        same way), and the chroma is stretched back.
        """
        size = (self.image_size, self.image_size)
        square = np.array(gray.resize(size, Image.Resampling.LANCZOS))  # antialiased
        condition = self.color_space.condition(torch.from_numpy(square)[None, None].to(self.device))
        return self.color_space.chroma(self.generator(condition))[0].cpu()

    @torch.inference_mode()
    def _join(self, gray: Image.Image, chroma: Tensor) -> Image.Image:
        """Lightness of a photograph and chroma [2, S, S] → RGB of the photograph's size."""
        width, height = gray.size
        planes = [Image.fromarray(plane.numpy()) for plane in chroma]
        colored = Image.new("RGB", gray.size)
        strip = max(1, STRIP_PIXELS // width)
        for top in range(0, height, strip):
            bottom = min(top + strip, height)
            pixels = torch.from_numpy(np.array(gray.crop((0, top, width, bottom)))).to(self.device)
            L = lightness(pixels / 255)
            ab = [_stretch(plane, top, bottom, gray.size).to(self.device) for plane in planes]
            rgb = lab_to_rgb(torch.stack([L, *ab])[None])[0]
            rows = (rgb * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            colored.paste(Image.fromarray(rows), (0, top))
        return colored


def _stretch(plane: Image.Image, top: int, bottom: int, size: tuple[int, int]) -> Tensor:
    """Rows top … bottom of a plane (mode "F") stretched to a size (width, height)."""
    width, height = size
    # With a box, Pillow still filters across its edges: strips meet without a seam.
    box = (0, top * plane.height / height, plane.width, bottom * plane.height / height)
    rows = plane.resize((width, bottom - top), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(rows))
