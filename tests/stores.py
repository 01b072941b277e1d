"""The stores that shards may lie in, each on loopback, alike for tests."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests import az_server, gs_server, s3_server
from tests.az_server import az_server as azure
from tests.gs_server import gs_server as google
from tests.hub_server import HubServer
from tests.s3_server import s3_server as amazon

SCHEMES = ("s3", "gs", "az", "hf")
TOKEN = "hf_of_the_owner"
_BELOW = "{repo_id}/resolve/{revision}/{filename}"  # an endpoint, as the hub's library has it


@dataclass(frozen=True)
class Store:
    """A bucket, a container or a data set that this process finds by its environment.

    url: of a folder in it. nowhere: of one in a bucket that is not there. environment: what another
    process needs. blobs: what it holds, by the name below the folder.
    """

    url: str
    nowhere: str
    environment: Mapping[str, str]
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]
    remove: Callable[[str], None]


def use(environment: Mapping[str, str]) -> None:
    """Let this process, which another one started, find the store."""
    import os

    os.environ.update(environment)
    if "HF_ENDPOINT" in environment:  # read once, when the library is imported
        from huggingface_hub import constants

        constants.ENDPOINT = environment["HF_ENDPOINT"]
        constants.HUGGINGFACE_CO_URL_TEMPLATE = f"{constants.ENDPOINT}/{_BELOW}"


@contextmanager
def store_on_loopback(monkeypatch: pytest.MonkeyPatch, scheme: str) -> Iterator[Store]:
    """Start the server of a store and let this process find it."""
    if scheme == "hf":
        with _hub(monkeypatch) as store:
            yield store
        return
    server, system_of = {
        "s3": (amazon, s3_server.file_system),
        "gs": (google, gs_server.file_system),
        "az": (azure, az_server.file_system),
    }[scheme]
    with server(monkeypatch, "photos") as environment:
        system = system_of()

        def at(name: str) -> str:
            system.invalidate_cache()
            return f"photos/some/shards/{name}"

        yield Store(
            f"{scheme}://photos/some/shards",
            f"{scheme}://no-bucket/shards",
            environment,
            read=lambda name: system.cat_file(at(name)),
            write=lambda name, data: system.pipe_file(at(name), data),
            remove=lambda name: system.rm_file(at(name)),
        )


@contextmanager
def _hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    from huggingface_hub import HfFileSystem, constants

    HfFileSystem.clear_instance_cache()
    with HubServer() as server:
        server.large, server.token = (".tar",), TOKEN
        server.models["me/photos"] = files = {}
        environment = {
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": TOKEN,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{_BELOW}")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield Store(
            "hf://datasets/me/photos/some/shards",
            "hf://datasets/me/absent/shards",
            environment,
            read=lambda name: files[f"some/shards/{name}"],
            write=lambda name, data: files.update({f"some/shards/{name}": data}),
            remove=lambda name: files.pop(f"some/shards/{name}"),
        )
