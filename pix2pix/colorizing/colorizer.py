"""A trained generator as a thing that colors photographs of any size."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pix2pix.colorizing.contrast import contrast, is_faded, stretch_array, stretch_contrast
from pix2pix.colorizing.upsampling import GuidedChroma
from pix2pix.export.generator import Generator
from pix2pix.model.color import ColorSpace, fit_gamut, lab_to_rgb, lightness
from pix2pix.photos.photo import as_photo, luma
from pix2pix.photos.rows import to_8_bits
from pix2pix.run.devices import exact_fp32
from pix2pix.run.weights import load_generator, newest_checkpoint

# Colors are computed in float32, a strip of rows at a time: some 200 MB of working memory, however
# large the photograph.
STRIP_PIXELS = 2**20


def best_device() -> str:
    """Return a GPU where torch sees one: "cuda" (NVIDIA, AMD), or "mps" (Apple); else "cpu"."""
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
        """Load the newest checkpoint of a training, averaged weights where it averages.

        On a GPU where there is one. Raises UserError where there is no run or no checkpoint.
        """
        generator, config, _ = load_generator(run_dir, newest_checkpoint(run_dir))
        return cls(generator, ColorSpace(config.color_space), config.image_size, best_device())

    @classmethod
    def from_path(cls, source: str | Path) -> "Colorizer":
        """Load a run (as `from_run`), an exported folder, or "owner/name" on the hub.

        On a GPU where there is one. Raises UserError for anything else, and for damaged files.
        """
        if (Path(source) / "checkpoints").is_dir():
            return cls.from_run(Path(source))
        generator = Generator.from_pretrained(source)
        return cls(generator, generator.color_space, generator.image_size, best_device())

    def fingerprint(self) -> str:
        """Return what tells this model from others: a digest of its weights, in hex."""
        digest = sha256(f"{self.color_space} {self.image_size}".encode())
        for name, tensor in self.generator.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def colorize(
        self, photo: Image.Image, saturation: float = 1.0, restore_contrast: bool = False
    ) -> Image.Image:
        """Color a photograph, whose own colors are not seen.

        Args:
            photo: a picture of Pillow's. One that Pillow has opened is taken as `open_photo` would
                open its file: turned upright, its color profile applied, 16-bit gray scaled.
            saturation: factor on the network's chroma; 0 gives the gray photograph. Hue stays.
            restore_contrast: the result goes from black to white. What the network is shown of a
                faded print does so anyway; its colors are then faded as the print is.

        Returns:
            Mode "RGB" (sRGB, 8 bits) of exactly the size of the upright photograph. It keeps the
            photograph's lightness at full resolution, to rounding: where sRGB has no such color at
            that lightness, the chroma gives way. The network only gives chroma, to which the eye is
            far less sharp.

        Raises:
            TypeError: `photo` is no picture of Pillow's.
        """
        gray = np.asarray(luma(as_photo(photo)))
        return Image.fromarray(self.colorize_array(gray, saturation, restore_contrast))

    def colorize_array(
        self, gray: np.ndarray, saturation: float = 1.0, restore_contrast: bool = False
    ) -> np.ndarray:
        """Color the luma of a photograph at its own depth.

        Args:
            gray: [H, W], uint8 or uint16, black at 0 and white at 255 or 65,535, as sRGB has it.
            saturation: as `colorize`.
            restore_contrast: as `colorize`.

        Returns:
            [H, W, 3] of the same type, sRGB.

        Raises:
            TypeError: `gray` is of another shape or type.
        """
        _check_gray(gray)
        shown = Image.fromarray(to_8_bits(gray))  # what the network sees, and contrast is judged by
        if restore_contrast:
            gray = stretch_array(gray, shown)
            shown = Image.fromarray(to_8_bits(gray))
        if is_faded(shown):
            # The network has hardly seen a faded photograph, and would tint it all alike.
            chroma = contrast(shown) * self.predict_chroma(stretch_contrast(shown))
        else:
            chroma = self.predict_chroma(shown)
        guided = GuidedChroma(saturation * chroma, lightness(self._square(shown) / 255), shown.size)
        del shown
        return self._join(gray, guided)

    @torch.inference_mode()
    def predict_chroma(self, gray: Image.Image) -> Tensor:
        """Return the network's prediction: mode "L" → a and b of CIE Lab, [2, S, S].

        S is image_size: the photograph is squashed to a square, because the network was trained
        on squares and its bottom level sees all of one. Hue survives that (DeOldify renders the
        same way), and the chroma is stretched back.
        """
        condition = self.color_space.condition(self._square(gray)[None, None].to(self.device))
        with exact_fp32():
            return self.color_space.chroma(self.generator(condition))[0].cpu()

    def _square(self, gray: Image.Image) -> Tensor:
        """Return the gray squashed to the network's size, antialiased: [S, S] uint8."""
        size = (self.image_size, self.image_size)
        return torch.from_numpy(np.array(gray.resize(size, Image.Resampling.LANCZOS)))

    @torch.inference_mode()
    def _join(self, gray: np.ndarray, guided: GuidedChroma) -> np.ndarray:
        """Lightness of a photograph [H, W] and its chroma → sRGB [H, W, 3] of the same type."""
        height, width = gray.shape
        white = float(np.iinfo(gray.dtype).max)
        colored = np.empty((height, width, 3), gray.dtype)
        strip = max(1, STRIP_PIXELS // width)
        for top in range(0, height, strip):
            rows = torch.from_numpy(gray[top : top + strip].astype(np.float32))
            L = lightness(rows.to(self.device) / white)
            lab = torch.cat([L[None], guided.rows(top, L)])
            rgb = lab_to_rgb(fit_gamut(lab[None]))[0]
            pixels = (rgb * white).round().permute(1, 2, 0).cpu().numpy()
            colored[top : top + strip] = pixels
        return colored


def _check_gray(gray: np.ndarray) -> None:
    """Raise TypeError unless this is luma of 8 or 16 bits."""
    if not isinstance(gray, np.ndarray):
        raise TypeError(f"an array is needed, not {type(gray).__name__}; colorize takes pictures")
    if gray.dtype not in (np.uint8, np.uint16) or gray.ndim != 2 or not gray.size:
        raise TypeError(
            f"luma of a photograph is needed, [H, W] of uint8 or uint16, not {list(gray.shape)} "
            f"of {gray.dtype}"
        )
