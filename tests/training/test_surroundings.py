"""A training in hostile surroundings: real launchers, real signals, a real full disk.

Faults of a file system are injected at os.pread by a `sitecustomize` of the test's own, in the
processes of the training and its loader workers.
"""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_docs import PAGES
from tests.training.test_courtesy import fill, small_disk
from tests.training.test_launcher import (
    ENVIRONMENT,
    LAUNCHER,
    PYTHON,
    ROOT,
    SECONDS,
    TWO,
    logged_steps,
    started,
    started_ranks,
    train,
    wait_for,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

FAULTS = '''
import errno, multiprocessing, os, stat, threading, time

FILE, KIND = os.environ["FAULT_FILE"], os.environ["FAULT"]
real = os.pread

def keep(works, fails):
    """Write aside and rename: another process, or thread, reads the file meanwhile."""
    aside = f"{FILE}.{os.getpid()}.{threading.get_ident()}"
    with open(aside, "w") as file:
        file.write(f"{works} {fails}")
    os.replace(aside, FILE)

def pread(descriptor, size, offset):
    """Fail as the file named FAULT_FILE says: how many reads still work, and how many then fail."""
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if name.endswith(".tar") and name.startswith(os.environ.get("FAULT_UNDER", "")):
        try:
            works, fails = map(int, open(FILE).read().split())
        except (OSError, ValueError):
            works, fails = 1, 0
        if works > 0:
            works -= 1
        elif fails > 0:
            fails -= 1
            if KIND != "SHORT":
                keep(0, fails)
                raise OSError(getattr(errno, KIND), os.strerror(getattr(errno, KIND)))
            size = min(size, 100)
        keep(works, fails)
    return real(descriptor, size, offset)

os.pread = pread
if "FAULT_PATIENCE" in os.environ:
    import pix2pix.system.reading
    pix2pix.system.reading.PATIENCE_SECONDS = float(os.environ["FAULT_PATIENCE"])
    pix2pix.system.reading.FIRST_PAUSE_SECONDS = 0.05
'''


def ended(*command: str, status: int, **variables: str) -> str:
    """What the command printed, ended with `status`."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=ENVIRONMENT | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def prose(text: str) -> str:
    return " ".join(text.split())


def without(flags: list[str], name: str) -> list[str]:
    return [flag for flag in flags if not flag.startswith(f"--{name}=")]


@pytest.mark.parametrize(("processes", "backend"), [([], "no"), (TWO, "eager")])
def test_precision_and_dynamo_of_the_launcher_are_taken_and_told(
    tiny_shards, tmp_path, processes, backend
):
    command = without(train(tmp_path / "run", tiny_shards, total_steps=2), "precision")
    asked = ["--mixed_precision", "bf16", "--dynamo_backend", backend]
    output = ended(*LAUNCHER, *processes, *asked, *command, status=0)
    world_size = 2 if processes else 1
    first = f"training on {world_size} × cpu, precision bf16 (from accelerate launch)"
    assert first in output.splitlines()
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["precision"], config["compile"]) == ("bf16", backend != "no")


def test_a_config_file_of_accelerate_is_heard_and_a_flag_of_ours_wins(tiny_shards, tmp_path):
    (tmp_path / "default_config.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: fp16\n"
        "num_machines: 1\nnum_processes: 1\nuse_cpu: true\n"
    )
    launcher = [*LAUNCHER, "--config_file", str(tmp_path / "default_config.yaml")]
    output = ended(*launcher, *train(tmp_path / "run", tiny_shards, total_steps=1), status=0)
    told = 'precision fp32 (--precision; accelerate\'s "fp16" does not change it)'
    assert told in prose(output)


@pytest.mark.parametrize(
    ("variable", "what"),
    [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM")],
)
def test_what_a_launcher_asks_in_vain_is_refused_at_once(tiny_shards, tmp_path, variable, what):
    """The variable is set by the test where the launcher would want a package of its own."""
    command = [*PYTHON, *train(tmp_path / "run", tiny_shards)]
    assert f"error: the launcher asks for {what}" in ended(*command, status=2, **{variable: "true"})
    assert not (tmp_path / "run").exists()


def test_accumulation_of_the_launcher_is_honored(tiny_shards, tmp_path):
    variables = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "3"}
    ended(*PYTHON, *train(tmp_path / "run", tiny_shards, total_steps=1), status=0, **variables)
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["grad_accumulation_steps"] == 3


def test_gpus_that_are_not_there_end_a_launch_with_one_error(tiny_shards, tmp_path):
    variables = {"ACCELERATE_USE_CPU": "false"}
    output = ended(*LAUNCHER, *TWO, *train(tmp_path / "run", tiny_shards), status=1, **variables)
    told = "GPUs were asked for (accelerate launch with several processes), but torch"
    assert prose(output).count(told) == 1, output
    assert "is done" not in output


def test_a_mistake_is_told_before_torch_is_imported(tmp_path, tiny_shards):
    """torch is masked: an import of it would be an error of another kind."""
    masked = "import sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    run = f"{masked} import runpy; runpy.run_path('scripts/train.py', run_name='__main__')"
    for changes, words in (
        ({"shards": tmp_path / "nope"}, "there is no folder"),
        ({"global_batch": 7, "grad_accumulation_steps": 2}, "global_batch 7 does not divide"),
        ({"global_batch": 300}, "fewer than one global batch"),
    ):
        flags = {"shards": tiny_shards} | changes
        command = [*PYTHON, "-c", run, *train(tmp_path / "run", **flags)]
        assert words in prose(ended(*command, status=2))


@pytest.fixture
def faults(tmp_path):
    """Variables that put faults into os.pread; (works, fails) are counted down in a file."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FAULTS)
    file = tmp_path / "reads"
    path = {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}", "FAULT_FILE": str(file)}

    def variables(kind: str, works: int, fails: int, **others: str) -> dict[str, str]:
        file.write_text(f"{works} {fails}")
        return path | {"FAULT": kind} | others

    return variables


@pytest.mark.parametrize("kind", ["EIO", "ESTALE", "SHORT"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_system_that_stumbles_is_asked_again(tiny_shards, tmp_path, faults, kind, workers):
    command = [*PYTHON, *train(tmp_path / "run", tiny_shards, num_workers=workers)]
    output = ended(*command, status=0, **faults(kind, works=20, fails=2))
    assert output.count("trying again for up to") == (kind != "SHORT")
    assert "finished at step 4" in output


@pytest.mark.parametrize("workers", [0, 1])
def test_a_disk_that_does_not_answer_saves_what_there_is_and_is_blamed(
    tiny_shards, tmp_path, faults, workers
):
    run_dir = tmp_path / "run"
    command = [*PYTHON, *train(run_dir, tiny_shards, total_steps=40, num_workers=workers)]
    # 12 reads a step; of the 40 steps the first ones can be read, and then none.
    broken = faults("EIO", works=150, fails=10**9, FAULT_PATIENCE="0.2")
    output = prose(ended(*command, status=75, **broken))
    assert "The reason is the disk: the file system of" in output
    assert "Input/output error" in output
    assert "broken sample" not in output
    last = logged_steps(run_dir)[-1]
    assert f"stopped and saved at step {last};" in output
    assert 5 <= last <= 12
    again = ended(*PYTHON, *train(run_dir, tiny_shards, total_steps=last + 1), status=0)
    assert f"going on from step {last} " in again


def test_a_disk_that_fails_one_of_two_ranks_stops_both_with_the_same_step(
    tiny_shards, tmp_path, faults
):
    run_dir = tmp_path / "run"
    variables = faults("EIO", works=100, fails=10**9, FAULT_PATIENCE="0.2")
    with started_ranks(run_dir, tiny_shards, 2, rank_variables={1: variables}) as ranks:
        outputs = [rank.communicate(timeout=SECONDS)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [75, 75], outputs
    assert "The reason is the disk" in prose(outputs[0])
    saved = [path.name for path in (run_dir / "checkpoints").iterdir()]
    assert saved == [f"step_{logged_steps(run_dir)[-1]:09d}"]


@pytest.mark.parametrize("works", [0, 15])  # 3 reads fetch a shard; there are 7, five come
def test_a_disk_behind_a_cache_is_blamed_as_any_other(tiny_shards, tmp_path, faults, works):
    size = max(path.stat().st_size for path in tiny_shards.glob("*.tar"))
    cache = {"shards_cache": tmp_path / "cache", "shards_cache_gib": 3.5 * size / 2**30}
    flags = {"total_steps": 40, "global_batch": 2, "window_shards": 1, "num_workers": 0, **cache}
    command = [*PYTHON, *train(tmp_path / "run", tiny_shards, **flags)]
    dead = {"FAULT_UNDER": str(tiny_shards), "FAULT_PATIENCE": "0.2"}
    broken = faults("EIO", works=works, fails=10**9, **dead)
    output = prose(ended(*command, status=75, **broken))
    assert "The reason is the disk: the file system of" in output
    if works:
        last = logged_steps(tmp_path / "run")[-1]
        assert f"stopped and saved at step {last};" in output
        flags["total_steps"] = last + 1
        again = ended(*PYTHON, *train(tmp_path / "run", tiny_shards, **flags), status=0)
        assert f"going on from step {last} " in again
    else:
        assert "before the first step" in output


def test_shards_that_can_not_be_read_at_all_end_with_75_and_no_step(tiny_shards, tmp_path, faults):
    variables = faults("ESTALE", works=0, fails=10**9, FAULT_PATIENCE="0.2")
    output = ended(*PYTHON, *train(tmp_path / "run", tiny_shards), status=75, **variables)
    assert "stopped and saved at step 0" not in output
    assert "The reason is the disk" in prose(output)


def test_a_sample_that_reads_well_and_does_not_decode_is_broken(tiny_shards, tmp_path):
    import shutil

    shards = shutil.copytree(tiny_shards, tmp_path / "shards")
    for shard in shards.glob("train-*.tar"):
        data = bytearray(shard.read_bytes())
        for place in range(512, len(data) - 512):
            if data[place : place + 3] == b"\xff\xd8\xff":
                data[place : place + 3] = b"abc"
        shard.write_bytes(bytes(data))
    output = ended(*PYTHON, *train(tmp_path / "run", shards), status=2)
    assert prose(output).count("error: broken sample") == 1


def test_a_disk_that_is_full_while_logging_ends_nothing(tiny_shards, tmp_path):
    with small_disk(tmp_path / "disk", 8) as disk:
        run_dir = disk / "run"
        flags = {"total_steps": 60, "sample_every": 3, "checkpoint_every": 0}
        command = [*PYTHON, *train(run_dir, tiny_shards, **flags)]
        with started(*command, mark=str(run_dir)) as training:
            wait_for(lambda: len(logged_steps(run_dir)) >= 3)
            filler = fill(disk)
            full_at = logged_steps(run_dir)[-1]
            time.sleep(1.5)  # steps of a full disk; how many does not matter
            filler.unlink()
            output = training.communicate(timeout=SECONDS)[0]
            assert training.returncode == 0, output
        assert output.count("warning: can't write") <= 2
        assert "Traceback" not in output
        assert logged_steps(run_dir) == list(range(1, 61)), full_at


def test_a_checkpoint_that_can_not_be_written_ends_it_with_one_error(tiny_shards, tmp_path):
    with small_disk(tmp_path / "disk", 8) as disk:
        run_dir = disk / "run"
        flags = {"total_steps": 5000, "checkpoint_every": 20, "keep_checkpoints": 1}
        command = [*PYTHON, *train(run_dir, tiny_shards, **flags)]
        with started(*command, mark=str(run_dir)) as training:
            wait_for(lambda: list((run_dir / "checkpoints").glob("step_*")))
            fill(disk)
            output = training.communicate(timeout=SECONDS)[0]
            assert training.returncode == 2, output
        assert output.count("error: could not save a checkpoint") == 1
        assert "Traceback" not in output
        (disk / "filler").unlink()
        (good,) = (run_dir / "checkpoints").glob("step_*")
        step = int(good.name.removeprefix("step_"))
        again = ended(*PYTHON, *train(run_dir, tiny_shards, total_steps=step + 1), status=0)
        assert f"going on from step {step} " in again


@pytest.mark.parametrize("redirection", [">&- 2>&-", "> /dev/full 2>&1", "| head -1"])
def test_an_output_that_takes_nothing_ends_no_training(tiny_shards, tmp_path, redirection):
    command = " ".join([*PYTHON, *train(tmp_path / "run", tiny_shards)])
    variables = {"PYTHONIOENCODING": "ascii"}
    ended("bash", "-c", f"set -o pipefail; {command} {redirection}", status=0, **variables)
    assert logged_steps(tmp_path / "run") == [1, 2, 3, 4]


ENTRY_POINT = re.search(r"^```shell\n(#!.*?)^```", PAGES["launchers.md"], re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("launcher", [LAUNCHER, [*LAUNCHER, *TWO]])
def test_the_entry_point_of_the_docs_ends_when_the_training_has_saved(
    tiny_shards, tmp_path, launcher
):
    run_dir = tmp_path / "run"
    script = tmp_path / "entrypoint.sh"
    script.write_text(ENTRY_POINT[1])
    command = ["bash", str(script), *launcher, *train(run_dir, tiny_shards, total_steps=5000)]
    with started(*command, mark=str(run_dir)) as entry:
        wait_for(lambda: len(logged_steps(run_dir)) >= 3)
        entry.terminate()
        output = entry.communicate(timeout=SECONDS)[0]
        assert entry.returncode == 75, output
        last = logged_steps(run_dir)[-1]
        assert (run_dir / "checkpoints" / f"step_{last:09d}").is_dir()  # now: a container ends here
    assert output.count("SIGTERM: stopping after this step, saving …") == 1
    assert f"stopped and saved at step {last}" in output


def test_the_entry_point_passes_the_status_of_a_command_on(tmp_path):
    script = tmp_path / "entrypoint.sh"
    script.write_text(ENTRY_POINT[1])
    assert ended("bash", str(script), "sh", "-c", "echo done; exit 3", status=3) == "done\n"


@pytest.mark.parametrize("program", ["accelerate", "torchrun"])
def test_two_launchers_train_together_without_a_scheduler(tiny_shards, tmp_path, program):
    """As on two machines, both on loopback: each launcher starts one of the two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    tools = Path(sys.executable).parent
    with contextlib.ExitStack() as stack:
        launchers = []
        for rank in ("0", "1"):
            if program == "accelerate":
                machines = ["--num_machines", "2", "--num_processes", "2", "--machine_rank", rank]
                address = ["--main_process_ip", "127.0.0.1", "--main_process_port", port]
                command = [str(tools / "accelerate"), "launch", "--multi_gpu", *machines, *address]
            else:
                machines = ["--nnodes", "2", "--nproc_per_node", "1", "--node_rank", rank]
                address = ["--master_addr", "127.0.0.1", "--master_port", port]
                command = [str(tools / "torchrun"), *machines, *address]
            command += train(tmp_path / "run", tiny_shards)
            launchers.append(stack.enter_context(started(*command, mark=str(tmp_path))))
        outputs = [launcher.communicate(timeout=SECONDS)[0] for launcher in launchers]
        assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    assert "training on 2 × cpu" in outputs[0]
    assert "finished at step 4" in outputs[0]
    assert "training on" not in outputs[1]
    assert logged_steps(tmp_path / "run") == [1, 2, 3, 4]


def test_windows_is_told_one_sentence():
    """sys.platform is patched: this is no Windows."""
    code = "import sys; sys.platform = 'win32'; import pix2pix.cli.command_line"
    output = ended(*PYTHON, "-c", code, status=1)
    assert output.count("\n") == 1
    assert "on Windows use WSL" in output
