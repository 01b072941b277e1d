"""Training steps on the device: eager and compiled, at many batches, and beside the classic one."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from pix2pix.benchmark.options import StepOptions
from pix2pix.benchmark.rounds import take_turns
from pix2pix.benchmark.step import flops_of, matmuls, measure, our_step
from pix2pix.gpu.look import device_of
from pix2pix.gpu.sections import Row, Trial
from pix2pix.run.distributed import Distributed
from pix2pix.training.precision import default_precision
from pix2pix.training.step import PRECISIONS

Step = Callable[[], object]


def eager(trial: Trial) -> Iterator[Row]:
    """Yield a row for each batch: its rate, and its arithmetic beside matrix multiplication.

    A step and the matrix products take turns. A batch that does not fit is a row that says so.
    """
    device, precision = device_of(trial), _precision(trial)
    products, matmul_flops = matmuls(device, PRECISIONS[precision] or torch.float32)
    flops = flops_of(our_step(_options(trial, 1), precision, device))  # of a photograph
    for batch in trial.batches:
        head: Row = {"batch": batch, "precision": precision}
        try:
            held = _held(device)
            step = our_step(_options(trial, batch), precision, device)
            peak = _peak_gib(step, device, held)
            sides: dict[str, Step] = {"ours": step, **products}
            timings = take_turns(sides, device, trial.rounds, trial.seconds_per_turn)
        except torch.OutOfMemoryError:
            yield {**head, "photographs/s": "does not fit"}
            return
        seconds = timings["ours"].median
        product = min(timings[name].median for name in products)
        yield {
            **head,
            "photographs/s": batch / seconds,
            "ms per step": 1000 * seconds,
            "spread": timings["ours"].spread,
            "TFLOP/s": flops * batch / seconds / 1e12,
            "matmul TFLOP/s": matmul_flops / product / 1e12,
            "% of matmul": 100 * (flops * batch / seconds) / (matmul_flops / product),
            "peak GiB": peak,
        }
        del step, sides


def compiled(trial: Trial) -> Iterator[Row]:
    """Yield a row for each batch and mode: default, and reduce-overhead by CUDA graphs."""
    yield from _compiled(trial, ("default", "reduce-overhead"))


def autotune(trial: Trial) -> Iterator[Row]:
    """Yield the same for max-autotune, which takes many minutes to compile."""
    yield from _compiled(trial, ("max-autotune-no-cudagraphs", "max-autotune"))


def classic(trial: Trial) -> Iterator[Row]:
    """Yield the figures of `benchmark.py step`: ours, and the classic step at its best batch."""
    options = replace(
        _options(trial, trial.trained_batch), classic_batches=tuple(trial.classic_batches)
    )
    with Distributed() as distributed:
        _check_device(trial, distributed)
        yield measure(options, distributed)


def _compiled(trial: Trial, modes: tuple[str, ...]) -> Iterator[Row]:
    """Yield rows; raises at the end where a mode failed, so that the others are measured."""
    failed = []
    for batch in trial.compiled_batches:
        for mode in modes:
            try:
                yield _compiled_row(trial, batch, mode)
            except Exception as error:  # a compiler fails in as many ways as it has parts
                reason = (str(error).splitlines() or [""])[0][:150]
                yield {"batch": batch, "mode": mode, "photographs/s": f"failed: {reason}"}
                failed.append(f"{mode} at batch {batch}: {type(error).__name__}: {reason}")
    if failed:
        raise RuntimeError("; ".join(failed))


def _compiled_row(trial: Trial, batch: int, mode: str) -> Row:
    device, precision = device_of(trial), _precision(trial)
    torch.compiler.reset()  # or earlier modes count against the limit of recompilations
    how = {"mode": mode} if trial.backend == "inductor" else {"backend": trial.backend}
    options = _options(trial, batch)
    plain = our_step(options, precision, device)
    fast = our_step(replace(options, compile=True), precision, device, **how)
    began = time.perf_counter()
    for _ in range(3):  # CUDA graphs are recorded in the second call and the third
        fast()
    seconds = time.perf_counter() - began
    sides: dict[str, Step] = {"eager": plain, "compiled": fast}
    timings = take_turns(sides, device, trial.rounds, trial.seconds_per_turn)
    rate = batch / timings["compiled"].median
    return {
        "batch": batch,
        "mode": mode,
        "precision": precision,
        "photographs/s": rate,
        "eager photographs/s": batch / timings["eager"].median,
        "times eager": timings["eager"].median / timings["compiled"].median,
        "seconds to compile": seconds,
        "spread": timings["compiled"].spread,
    }


def _options(trial: Trial, batch: int) -> StepOptions:
    return StepOptions(
        batch_size=batch,
        image_size=trial.image_size,
        width=trial.width,
        precision=trial.precision,  # type: ignore[arg-type]
        rounds=trial.rounds,
        seconds_per_turn=trial.seconds_per_turn,
    )


def _precision(trial: Trial) -> str:
    return trial.precision or default_precision(device_of(trial))


def _check_device(trial: Trial, distributed: Distributed) -> None:
    if distributed.device.type != trial.device:
        raise RuntimeError(f"this ran on {distributed.device}, not on {trial.device}")


def _held(device: torch.device) -> int:
    """Return the bytes that tensors hold: here, the matrices."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _peak_gib(step: Step, device: torch.device, held: int) -> float | str:
    """Return the most that a step holds, networks and optimizers included; `held` is others'."""
    step()  # the optimizers have their state
    if device.type != "cuda":
        return "not counted"
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - held) / 2**30
