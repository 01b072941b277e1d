"""A trained generator as a thing that colors photographs of any size."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pix2pix.colorizing.contrast import contrast, is_faded, stretch_contrast
from pix2pix.colorizing.upsampling import GuidedChroma
from pix2pix.export.generator import Generator
from pix2pix.model.color import ColorSpace, fit_gamut, lab_to_rgb, lightness
from pix2pix.photos.photo import luma
from pix2pix.run.checkpoint import load_generator, newest_checkpoint

# Colors are computed in float32, a strip of rows at a time: some 200 MB of working memory, however
# large the photograph.
STRIP_PIXELS = 2**20


def best_device() -> str:
    """A GPU where torch sees one: NVIDIA's or AMD's ("cuda"), or Apple's ("mps"); else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


class Colorizer:
    """Colors photographs with a generator that was trained at image_size × image_size px.

    The generator is moved to the device and put in evaluation mode. The same photograph gives the
    same colors every time.
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
        return cls(generator, ColorSpace(config.color_space), config.image_size, best_device())

    @classmethod
    def from_path(cls, source: str | Path) -> "Colorizer":
        """A run (as `from_run`), an exported folder, or "owner/name" on the Hugging Face hub.

        On a GPU where there is one. Raises UserError for anything else, and for damaged files.
        """
        if (Path(source) / "checkpoints").is_dir():
            return cls.from_run(Path(source))
        generator = Generator.from_pretrained(source)
        return cls(generator, generator.color_space, generator.image_size, best_device())

    def colorize(
        self, photo: Image.Image, saturation: float = 1.0, restore_contrast: bool = False
    ) -> Image.Image:
        """Color a photograph, upright and in mode "L" or "RGB", whose own colors are not seen.

        saturation: factor on the network's chroma; 0 gives the gray photograph. Hue stays.
        restore_contrast: the result goes from black to white. What the network is shown of a
            faded print does so anyway; its colors are then faded as the print is.

        Returns mode "RGB" (sRGB) of exactly the same size. It keeps the photograph's lightness at
        full resolution, to rounding: where sRGB has no such color at that lightness, the chroma
        gives way. The network only gives chroma, to which the eye is far less sharp.
        """
        gray = luma(photo)
        if restore_contrast:
            gray = stretch_contrast(gray)
        if is_faded(gray):
            # The network has hardly seen a faded photograph, and would tint it all alike.
            chroma = contrast(gray) * self.predict_chroma(stretch_contrast(gray))
        else:
            chroma = self.predict_chroma(gray)
        return self._join(gray, saturation * chroma)

    @torch.inference_mode()
    def predict_chroma(self, gray: Image.Image) -> Tensor:
        """The network's idea of a photograph: mode "L" → a and b of CIE Lab, [2, S, S].

        S is image_size: the photograph is squashed to a square, because the network was trained
        on squares and its bottom level sees all of one. Hue survives that (DeOldify renders the
        same way), and the chroma is stretched back.
        """
        condition = self.color_space.condition(self._square(gray)[None, None].to(self.device))
        return self.color_space.chroma(self.generator(condition))[0].cpu()

    def _square(self, gray: Image.Image) -> Tensor:
        """The gray squashed to the network's size, antialiased: [S, S] uint8."""
        size = (self.image_size, self.image_size)
        return torch.from_numpy(np.array(gray.resize(size, Image.Resampling.LANCZOS)))

    @torch.inference_mode()
    def _join(self, gray: Image.Image, chroma: Tensor) -> Image.Image:
        """Lightness of a photograph and chroma [2, S, S] → RGB of the photograph's size."""
        width, height = gray.size
        guided = GuidedChroma(chroma, lightness(self._square(gray) / 255), gray.size)
        colored = Image.new("RGB", gray.size)
        strip = max(1, STRIP_PIXELS // width)
        for top in range(0, height, strip):
            rows = gray.crop((0, top, width, min(top + strip, height)))
            L = lightness(torch.from_numpy(np.array(rows)).to(self.device) / 255)
            lab = torch.cat([L[None], guided.rows(top, L)])
            rgb = lab_to_rgb(fit_gamut(lab[None]))[0]
            pixels = (rgb * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            colored.paste(Image.fromarray(pixels), (0, top))
        return colored
