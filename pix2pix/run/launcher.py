"""Settings of a launcher or scheduler in the environment: honored or refused, docs/launchers.md.

No torch: a training that can't follow its launcher says so before anything is imported.
"""

from collections.abc import Mapping
from typing import Any

from pix2pix.errors import UserError

PRECISION = "ACCELERATE_MIXED_PRECISION"
ACCUMULATION = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
DYNAMO = "ACCELERATE_DYNAMO_"
USE_CPU = "ACCELERATE_USE_CPU"

# Variable → (what it asks for, the flag of `accelerate launch` that sets it).
REFUSED = {
    "ACCELERATE_USE_FSDP": ("FSDP", "--use_fsdp"),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "--use_megatron_lm"),
    "ACCELERATE_USE_DEEPSPEED": ("DeepSpeed", "--use_deepspeed"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("a parallelism config", "--use_parallelism_config"),
}


def check(environment: Mapping[str, str]) -> None:
    """Raise UserError where the launcher asks for what a training here can't do."""
    for variable, (what, flag) in REFUSED.items():
        if _is_true(environment.get(variable)):
            raise UserError(
                f"the launcher asks for {what} ({variable}), but this training is data parallel: "
                f"each GPU holds both networks, 0.9 GB with their optimizers. Launch it without "
                f"{flag}, or with --config_file of a file that does not ask for it"
            )
    if environment.get(PRECISION) == "fp8":
        raise UserError(
            f"the launcher asks for fp8 ({PRECISION}), which these networks do not train in; "
            "use --mixed_precision bf16, fp16 or no"
        )


def defaults(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the flags of a training that the launcher sets: name → (text, where it stands).

    A flag of the training's own, or its --config file, wins. What accelerate exports when nobody
    asked (`no`, `NO`) says nothing.
    """
    told = {}
    precision = environment.get(PRECISION, "no").lower()
    if precision != "no":
        told["precision"] = (precision, f"{PRECISION}:")
    if _dynamo_backend(environment):
        told["compile"] = ("true", f"{DYNAMO}BACKEND:")
    if environment.get(ACCUMULATION, "auto") != "auto":
        told["grad_accumulation_steps"] = (environment[ACCUMULATION], f"{ACCUMULATION}:")
    return told


def compile_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return arguments of `Module.compile`, by the launcher's --dynamo_… flags; {}: torch's own."""
    backend = _dynamo_backend(environment)
    if not backend:
        return {}
    options: dict[str, Any] = {"backend": backend}
    mode = environment.get(f"{DYNAMO}MODE", "default")
    if mode != "default":
        options["mode"] = mode
    if _is_true(environment.get(f"{DYNAMO}USE_FULLGRAPH")):
        options["fullgraph"] = True
    if _is_true(environment.get(f"{DYNAMO}USE_DYNAMIC")):
        options["dynamic"] = True
    return options


def gpus_asked_for(environment: Mapping[str, str]) -> str | None:
    """Return who asked for GPUs; None where nobody did, or where a CPU was asked for."""
    if _is_true(environment.get(USE_CPU)):
        return None
    # accelerate sets USE_CPU for its one process, and leaves it out where it starts several.
    if PRECISION in environment and world_size(environment) > 1:
        return "accelerate launch with several processes"
    for variable in ("SLURM_GPUS_ON_NODE", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        if environment.get(variable, "0") not in ("", "0"):
            return f"{variable}={environment[variable]}"
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if visible and visible[0] != "-" and visible != "NoDevFiles":
        return f"CUDA_VISIBLE_DEVICES={visible}"
    return None


def world_size(environment: Mapping[str, str]) -> int:
    """Return how many processes were launched."""
    return int(environment.get("WORLD_SIZE") or 1)


def _dynamo_backend(environment: Mapping[str, str]) -> str:
    backend = environment.get(f"{DYNAMO}BACKEND", "no").lower()
    return "" if backend == "no" else backend


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true", "yes", "on", "y", "t")
