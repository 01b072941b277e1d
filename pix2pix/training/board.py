"""What TensorBoard shows of a run beside its curves: charts that compare, tables, hyperparameters.

Each goes into the event file of the run itself, so a run stays one line in every chart.
"""

import platform
from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import attrgetter
from typing import Any, cast

import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from torch.utils.tensorboard import FileWriter, SummaryWriter

from pix2pix.cli.options import flags_of
from pix2pix.config import TrainConfig
from pix2pix.run.distributed import Distributed
from pix2pix.run.run_directory import versions
from pix2pix.system.machine import num_cores, processor_name
from pix2pix.version import __version__

# Heading → chart → the curves in it: what one wants to see beside each other.
CHARTS = {
    "quality": {
        "color painted and true, in training": ["colorfulness/fake", "colorfulness/real"],
        "color painted and true, in val": [
            "evaluation/colorfulness",
            "evaluation/colorfulness_truth",
        ],
        "PSNR, dB": ["evaluation/psnr"],
        "chroma error": ["evaluation/chroma_error"],
    },
    "balance of the networks": {
        "D(real) and D(fake)": ["discriminator/real", "discriminator/fake"],
        "adversarial losses": ["loss/discriminator", "loss/generator_adversarial"],
        "L1 loss": ["loss/generator_l1"],
        "gradient norms": ["gradient_norm/discriminator", "gradient_norm/generator"],
    },
    "speed": {
        "photographs per second": ["speed/samples_per_second"],
        "share of time waiting for data": ["speed/share_waited_for_data"],
    },
}

# Where the runs of a sweep are compared: flags that stand in front, and the last value of these.
OFTEN_VARIED = ("gan_loss", "generator_width", "global_batch", "l1_weight", "learning_rate")
METRICS = (
    "evaluation/psnr",
    "evaluation/chroma_error",
    "evaluation/colorfulness",
    "evaluation/colorfulness_truth",
)


def describe_run(
    board: SummaryWriter, config: TrainConfig, machine: Mapping[str, str], step: int
) -> None:
    """Write charts, tables and hyperparameters of a start that goes on from `step`.

    config: resolved. machine: what the run is on, such as {"device": "cpu"}.
    """
    board.add_custom_scalars(
        {
            heading: {
                name: ["Multiline", [f"^{tag}$" for tag in tags]] for name, tags in charts.items()
            }
            for heading, charts in CHARTS.items()
        }
    )
    board.add_text("run/configuration", configuration_tables(config), step)
    board.add_text("run/machine", _table(["", ""], machine.items()), step)
    writer = cast(FileWriter, board.file_writer)
    for tag, content in _hyperparameters(config).items():
        value = Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content))
        writer.add_summary(Summary(value=[value]))


def machine_of(distributed: Distributed, precision: str) -> dict[str, str]:
    """Return what this start runs on, for people; of rank 0's machine, which stands for all."""
    cpu = {"processor": processor_name(), "cores of process 0": str(num_cores())}
    return {
        "processes": str(distributed.world_size),
        "device": distributed.device_name,
        "precision": precision if precision != "no" else "fp32",
        **cpu,
        "CUDA": torch.version.cuda or "none",
        "system": platform.platform(),
        "pix2pix": __version__,
        **versions(),
    }


def configuration_tables(config: TrainConfig) -> str:
    """Return every flag by group, as Markdown; a value that is not the default is bold."""
    tables = []
    for group, flags in groupby(flags_of(TrainConfig).values(), attrgetter("group")):
        rows = []
        for flag in flags:
            value = getattr(config, flag.name)
            text = _shown(value)
            rows.append((flag.name, text if value == flag.default else f"**{text}**", flag.help))
        tables.append(f"### {group}\n\n{_table(['flag', 'value', ''], rows)}")
    return "\n\n".join(tables)


def _shown(value: Any) -> str:
    """Return a value as one writes it after its flag."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in [heading, *rows]]
    return "\n".join([lines[0], "|---" * lines[0].count(" | ") + "|---|", *lines[1:]])


def _hyperparameters(config: TrainConfig) -> dict[str, HParamsPluginData]:
    """Return what the HPARAMS page reads, by tag: its columns, and the values of this run.

    `SummaryWriter.add_hparams` would make a second run of it, and log the metrics again. Only the
    identity of a run is shown: TensorBoard keeps the values that it reads first, and these stay.
    """
    columns, start = [], SessionStartInfo()
    for name, value in config.identity().items():
        # `differs` puts a column in front, with a tick; TensorBoard shows five of them.
        column = HParamInfo(name=name, type=DATA_TYPE_STRING, differs=name in OFTEN_VARIED)
        if isinstance(value, bool) or not isinstance(value, int | float):
            start.hparams[name].string_value = _shown(value)
        else:
            column.type = DATA_TYPE_FLOAT64
            start.hparams[name].number_value = value
        columns.append(column)
    metrics = [MetricInfo(name=MetricName(tag=tag)) for tag in METRICS]
    experiment = Experiment(hparam_infos=columns, metric_infos=metrics)
    return {
        metadata.EXPERIMENT_TAG: HParamsPluginData(experiment=experiment),
        metadata.SESSION_START_INFO_TAG: HParamsPluginData(session_start_info=start),
    }
