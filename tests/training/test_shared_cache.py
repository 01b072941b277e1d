"""Two nodes and one cache, on a file system that both see: real launchers, real HTTP.

Both run here: their host names, and a file system without locks, are put in by a `sitecustomize`.
"""

import contextlib
import json
import socket
import sys
from pathlib import Path

import pytest

from tests.data.shard_server import ShardServer
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config
from tests.training.test_launcher import ROOT, SECONDS, started, train

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

NODE = """
import os, socket

socket.gethostname = lambda: os.environ["NODE"]
if "NO_LOCKS" in os.environ:
    import filelock

    def refuse(*_, **__):
        raise NotImplementedError("no locks on this file system")

    filelock.FileLock.acquire = refuse
"""


def losses(run_dir: Path) -> list[float]:
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row["loss/generator_l1"] for row in rows if "loss/generator_l1" in row]


@pytest.mark.parametrize("locks", [True, False])
def test_two_nodes_share_one_cache(tiny_shards, tmp_path, locks):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NODE)
    variables = {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"} | ({} if locks else {"NO_LOCKS": "1"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    address = ["--master_addr", "127.0.0.1", "--master_port", port]
    flags = {"shards_cache": tmp_path / "cache", "window_shards": 2}
    with ShardServer(tiny_shards) as server, contextlib.ExitStack() as stack:
        launchers = []
        for rank in ("0", "1"):
            nodes = ["--nnodes", "2", "--nproc_per_node", "1", "--node_rank", rank]
            command = [str(Path(sys.executable).with_name("torchrun")), *nodes, *address]
            command += train(tmp_path / "run", server.url, **flags)
            node = variables | {"NODE": f"node{rank}"}
            launchers.append(stack.enter_context(started(*command, mark=str(tmp_path), **node)))
        outputs = [launcher.communicate(timeout=SECONDS)[0] for launcher in launchers]
        assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
        assert len(server.tars) == len(list(tiny_shards.glob("*.tar")))
        most = 1 if locks else 4  # two nodes, and a loader worker of each
        assert max(server.tars.values()) <= most
    run_ranks(fit, 2, tiny_config(tiny_shards, tmp_path / "folder"))
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "folder"), rel=1e-3)
    left = {path.suffix for path in (tmp_path / "cache").iterdir()}
    assert left <= {".tar", ".npz", ".lock"}
