"""img2dataset on the same photographs, over HTTP as its users run it: the peer of data preparation.

It runs in a Python of its own, so that nothing of it is installed here.
"""

import asyncio
import json
import multiprocessing
import os
import subprocess
from collections.abc import Sequence
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path

from data_prep.photos import Photo, Source
from pix2pix.errors import UserError

_COMMAND = "from img2dataset import main; main()"
# What makes it fastest: no second look at the photographs, and its threads wait for HTTP alone.
_SETTINGS = {
    "resize_mode": "keep_ratio",
    "output_format": "webdataset",
    "encode_quality": 95,
    "thread_count": 32,
    "compute_hash": None,
    "extract_exif": False,
    "disallowed_header_directives": [],
}
_SHARDS_PER_PROCESS = 3


def img2dataset_rate(
    python: Path,
    source: Source,
    photos: Sequence[Photo],
    root: Path,
    short_side: int,
    num_processes: int,
    num_photos: int,
) -> float:
    """Photographs per second, its own start left out: one 4:2:0 JPEG of `short_side` each.

    root: an empty folder to write to. Raises UserError where it does not run.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(source, photos, theirs), daemon=True)
    server.start()
    theirs.close()  # or nobody would notice if the server died
    try:
        address = f"http://127.0.0.1:{ours.recv()}"
        numbers = islice(cycle(range(len(photos))), num_photos)
        (root / "urls.txt").write_text("".join(f"{address}/{number}\n" for number in numbers))
        settings = _SETTINGS | {
            "url_list": root / "urls.txt",
            "output_folder": root / "shards",
            "image_size": short_side,
            "processes_count": num_processes,
            "number_sample_per_shard": -(-num_photos // (_SHARDS_PER_PROCESS * num_processes)),
        }
        _run(python, [f"--{name}={value}" for name, value in settings.items()])
        return _rate(root / "shards", num_photos)
    finally:
        server.terminate()
        server.join()


def _run(python: Path, flags: list[str]) -> None:
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "no_proxy": "127.0.0.1"}
    environment.pop("PYTHONPATH", None)  # ours
    command = [str(python), "-c", _COMMAND, *flags]
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"--img2dataset {python} cannot be started: {error.strerror}") from error
    if run.returncode:
        last = (run.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"--img2dataset {python}: img2dataset failed there: {last}")


def _rate(shards: Path, num_photos: int) -> float:
    """From the times that it notes for each shard."""
    notes = [json.loads(path.read_bytes()) for path in shards.glob("*_stats.json")]
    done = sum(note["successes"] for note in notes)
    if done != num_photos:
        raise UserError(f"img2dataset made {done} of {num_photos} pictures; look at its settings")
    first, last = (min(n["start_time"] for n in notes), max(n["end_time"] for n in notes))
    return done / (last - first)


def _serve(source: Source, photos: Sequence[Photo], port: Connection) -> None:
    """Answer GET /NUMBER with a photograph, out of memory; tell the port first."""
    answers = [_answer(source.read(photo)) for photo in photos]

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(answers[int(request.split()[1][1:])])
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(reply, "127.0.0.1", backlog=1024)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def _answer(file: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(file)
    return head + file
