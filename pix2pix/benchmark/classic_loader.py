"""The yardstick of the loader: a folder of pictures, as published PyTorch code reads it.

One JPEG per photograph, opened by Pillow, cropped and mirrored on the CPU, turned to Lab by
scikit-image, handed over as float32, collated by torch.
"""

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor
from torch.utils.data import Dataset


class ImageFolder(Dataset[tuple[Tensor, Tensor]]):
    """Lightness [1, S, S] and chroma [2, S, S] in [-1, 1] of a random square of side S."""

    def __init__(self, files: list[Path], side: int) -> None:
        self.files = files
        self.side = side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        photo = Image.open(self.files[index]).convert("RGB")
        left = random.randint(0, photo.width - self.side)
        top = random.randint(0, photo.height - self.side)
        square = photo.crop((left, top, left + self.side, top + self.side))
        if random.random() < 0.5:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        lab = torch.from_numpy(rgb2lab(np.array(square)).astype(np.float32)).permute(2, 0, 1)
        return lab[:1] / 50 - 1, lab[1:] / 110
