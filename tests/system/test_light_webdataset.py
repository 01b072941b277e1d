import json
import subprocess
import sys

from tests.shard_runs import ENVIRONMENT

SCRIPT = """
import json, sys
from pix2pix.system.light_webdataset import import_webdataset
light = import_webdataset()
seen = {"torch": "torch" in sys.modules, "writer": light.TarWriter.__name__}
seen["same"] = import_webdataset() is light
import torch, webdataset
seen["whole"] = issubclass(webdataset.WebDataset, torch.utils.data.IterableDataset)
print(json.dumps(seen))
"""


def test_webdataset_comes_without_torch_and_spoils_nothing_for_who_wants_it_whole() -> None:
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    seen = json.loads(told.stdout)
    assert seen == {"torch": False, "writer": "TarWriter", "same": True, "whole": True}


def test_where_torch_is_there_webdataset_is_the_usual_one() -> None:
    code = "import torch; from pix2pix.system.light_webdataset import import_webdataset as load\n"
    code += "light = load(); import webdataset; assert light is webdataset"
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)
