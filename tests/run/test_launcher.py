"""Promises about a launcher's environment: honored or refused, and a flag of ours wins."""

import pytest

from pix2pix.cli.command_line import parse_all
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.run import launcher

# What `accelerate launch` 1.15 exports when nobody asked for anything.
NOTHING_SAID = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "False",
}


def parsed(environment: dict[str, str], *flags: str) -> TrainConfig:
    arguments = ["--shards=s", "--run_dir=r", *flags]
    (config,) = parse_all((TrainConfig,), arguments, launcher.defaults(environment))
    return config


@pytest.mark.parametrize("environment", [{}, NOTHING_SAID])
def test_a_launcher_that_says_nothing_leaves_our_defaults(environment):
    config = parsed(environment)
    assert (config.precision, config.compile, config.grad_accumulation_steps) == (None, False, 1)
    assert launcher.compile_options(environment) == {}


def test_precision_dynamo_and_accumulation_of_the_launcher_are_the_defaults_of_our_flags():
    environment = NOTHING_SAID | {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
        "ACCELERATE_DYNAMO_MODE": "max-autotune",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    }
    config = parsed(environment)
    assert (config.precision, config.compile, config.grad_accumulation_steps) == ("bf16", True, 4)
    assert launcher.compile_options(environment) == {"backend": "inductor", "mode": "max-autotune"}
    flags = ("--precision=no", "--compile=false", "--grad_accumulation_steps=2")
    config = parsed(environment, *flags)
    assert (config.precision, config.compile, config.grad_accumulation_steps) == ("no", False, 2)


def test_a_file_of_ours_wins_over_the_launcher(tmp_path):
    (tmp_path / "flags.yaml").write_text("precision: fp16\n")
    told = {"ACCELERATE_MIXED_PRECISION": "bf16"}
    assert parsed(told, f"--config={tmp_path / 'flags.yaml'}").precision == "fp16"


def test_a_value_that_no_flag_takes_is_refused_with_the_variable_that_holds_it():
    with pytest.raises(UserError, match=r"^ACCELERATE_GRADIENT_ACCUMULATION_STEPS: .*'many'"):
        parsed({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "many"})


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ACCELERATE_USE_FSDP", "true", "FSDP"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron-LM"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "a parallelism config"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "fp8"),
    ],
)
def test_what_this_training_can_not_do_is_refused(variable, value, words):
    launcher.check({variable: "false"} if value == "true" else {variable: "no"})
    with pytest.raises(UserError, match=rf"asks for {words} .*{variable}"):
        launcher.check({variable: value})


@pytest.mark.parametrize(
    ("environment", "who"),
    [
        ({}, None),
        ({"WORLD_SIZE": "2"}, None),  # torchrun says nothing of GPUs
        ({"ACCELERATE_MIXED_PRECISION": "no", "WORLD_SIZE": "2"}, "accelerate launch"),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, "CUDA_VISIBLE_DEVICES=0,1"),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, None),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
        ({"SLURM_GPUS_ON_NODE": "4"}, "SLURM_GPUS_ON_NODE=4"),
        ({"SLURM_GPUS_ON_NODE": "4", "ACCELERATE_USE_CPU": "true"}, None),
    ],
)
def test_who_asked_for_gpus(environment, who):
    asked = launcher.gpus_asked_for(environment)
    assert asked == who or (who and asked.startswith(who))
