"""The generator as ONNX for any batch size, checked in onnxruntime against torch.

Needs the packages of the extra `[onnx]`, which are imported on use.
"""

import importlib.util
from pathlib import Path

import torch

from pix2pix.errors import UserError
from pix2pix.export.generator import Exported

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "condition", "painting"
CHECKED_BATCHES = (1, 3)
# For values in [-1, 1]. Measured for widths of 4 to 64: at most 2e-6; one step of 8 bits is 8e-3.
TOLERANCE = 1e-4


def require_onnx() -> None:
    """Raise UserError unless the packages of the extra `[onnx]` are installed."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(
            f"ONNX needs {', '.join(absent)}, not installed here: pip install -e '.[onnx]'"
        )


def write_onnx(generator: Exported, path: Path) -> float:
    """Write the network as ONNX: condition [B, 1, S, S] → painting [B, C, S, S], in [-1, 1].

    S is the generator's image_size, B any number.

    Args:
        generator: on the CPU, in evaluation mode.
        path: the file to write.

    Returns:
        The largest difference between onnxruntime and torch.

    Raises:
        UserError: the difference is too large.
    """
    program = torch.onnx.export(
        generator,
        (_noise(generator, 2),),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "dynamo=True returns a program"
    for node in program.model.graph:
        node.metadata_props.clear()  # source lines with paths of this machine
    program.save(str(path), external_data=False)
    difference = _difference(generator, path)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{path.name} gives other colors than the network (by {difference:.1e} of 2); this "
            "pair of onnxruntime and torch does not agree: try other versions, or leave out --onnx"
        )
    return difference


@torch.inference_mode()
def _difference(generator: Exported, path: Path) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = 0.0
    for size in CHECKED_BATCHES:
        condition = _noise(generator, size)
        (painting,) = session.run([OUTPUT], {INPUT: condition.numpy()})
        largest = max(
            largest, (generator(condition) - torch.from_numpy(painting)).abs().max().item()
        )
    return largest


def _noise(generator: Exported, batch: int) -> torch.Tensor:
    shape = (batch, generator.color_space.condition_channels, *2 * (generator.image_size,))
    return torch.rand(shape, generator=torch.Generator().manual_seed(batch)) * 2 - 1
