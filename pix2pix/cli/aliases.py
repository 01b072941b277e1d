"""Names that other training programs give to our flags. They are suggested, not accepted."""

_FLAGS = {  # our flag: their names
    "checkpoint_every": "save_every save_steps save_freq save_interval checkpointing_steps",
    "compile": "torch_compile dynamo dynamo_backend",
    "cpus_per_task": "cpus cores",
    "discriminator_width": "ndf",
    "ema_decay": "ema",
    "epochs": "n_epochs num_epochs max_epochs num_train_epochs",
    "evaluate_every": "eval_every eval_steps eval_interval val_every",
    "gan_loss": "gan_mode loss",
    "generator_width": "ngf",
    "global_batch": "batch_size batch bs train_batch_size per_device_train_batch_size",
    "gpus_per_node": "gpus num_gpus devices ntasks_per_node",
    "grad_accumulation_steps": "gradient_accumulation_steps accumulate accumulation_steps",
    "image_size": "size img_size resolution crop_size load_size imsize",
    "init_from": "pretrained finetune finetune_from init load",
    "keep_checkpoints": "save_total_limit checkpoints_total_limit max_to_keep",
    "l1_weight": "lambda lambda_l1 l1_lambda l1",
    "learning_rate": "lr",
    "log_every": "log_interval log_freq logging_steps print_freq",
    "norm": "normalization norm_layer",
    "num_workers": "workers num_threads dataloader_num_workers",
    "out": "output output_dir out_dir save_dir",
    "photos": "images input input_dir image_dir dataroot",
    "precision": "amp fp16 bf16 mixed_precision dtype half",
    "run_dir": "output_dir out out_dir save_dir checkpoints_dir logdir log_dir model checkpoint",
    "sample_every": "sample_freq display_freq",
    "seed": "random_seed manual_seed",
    "shards": "data data_dir data_root dataroot dataset train_data",
    "time_limit_minutes": "time_limit max_time",
    "total_steps": "steps max_steps num_steps max_train_steps iterations max_iter",
    "warmup_steps": "warmup num_warmup_steps lr_warmup_steps",
}

_NO_FLAGS = {  # what to do instead: names that are no flag of ours
    "nothing to give: the same command resumes": (
        "resume resume_from resume_from_checkpoint continue_train"
    ),
    "the launcher decides: accelerate launch --multi_gpu --num_processes N": (
        "gpus gpu_ids num_gpus devices device num_processes nproc_per_node"
    ),
}


def flags_called(name: str) -> list[str]:
    """Return our flags that other programs call `name`, some of which a command may not have."""
    return [flag for flag, names in _FLAGS.items() if name.lower() in names.split()]


def instead_of(name: str) -> str:
    """Return what to do instead of giving a flag `name`, or "" if that is not known."""
    return next((words for words, names in _NO_FLAGS.items() if name.lower() in names.split()), "")
