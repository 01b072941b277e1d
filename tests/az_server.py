"""A substitution of Azure's blob storage on loopback: as much of its protocol as adlfs uses here.

The emulator of Azure, Azurite, comes by npm and not by pip. AZURITE_URL, where it is set, names one
that runs (docs/data.md), and tests ask that one instead. Signatures are not checked here.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from tests.web_server import LoopbackServer

ACCOUNT = "devstoreaccount1"
# The key that Azurite's documentation publishes for its one account.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_TIME = "Thu, 01 Jan 2026 00:00:00 GMT"


def connection(endpoint: str) -> str:
    """The connection string for a server at `endpoint`."""
    parts = {
        "DefaultEndpointsProtocol": "http",
        "AccountName": ACCOUNT,
        "AccountKey": KEY,
        "BlobEndpoint": f"{endpoint}/{ACCOUNT}",
    }
    return "".join(f"{name}={value};" for name, value in parts.items())


@contextmanager
def az_server(monkeypatch: pytest.MonkeyPatch, container: str) -> Iterator[Mapping[str, str]]:
    """Serve an empty container, and let this process find it; yields the environment that does."""
    azurite = os.environ.get("AZURITE_URL")
    with nullcontext() if azurite else AzServer() as server:
        environment = {"AZURE_STORAGE_CONNECTION_STRING": connection(azurite or server.url)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        system = file_system()
        if not azurite:
            server.containers[container] = {}
        elif system.exists(container):
            for name in system.find(container):
                system.rm_file(name)
        else:
            system.mkdir(container)
        yield environment


def file_system():
    """adlfs, which keeps nothing of an earlier server."""
    import adlfs

    adlfs.AzureBlobFileSystem.clear_instance_cache()
    return adlfs.AzureBlobFileSystem()


class AzServer(LoopbackServer):
    """Holds blobs by container and name."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.containers: dict[str, dict[str, bytes]] = {}


class _Handler(BaseHTTPRequestHandler):
    server: AzServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        container, name, query = self.asked()
        blobs = self.server.containers.get(container)
        if blobs is None:
            self.refuse("ContainerNotFound")
        elif query.get("comp") == ["list"]:
            self.list(container, query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
        elif not name:  # properties of the container
            self.answer(200)
        elif name not in blobs:
            self.refuse("BlobNotFound")
        else:
            self.send_blob(blobs[name])

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        container, name, _ = self.asked()
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if container not in self.server.containers:
            self.refuse("ContainerNotFound")
            return
        self.server.containers[container][name] = data
        self.answer(201)

    def do_DELETE(self) -> None:
        container, name, _ = self.asked()
        self.server.containers[container].pop(name)
        self.answer(202)

    def asked(self) -> tuple[str, str, dict[str, list[str]]]:
        """The container, the blob and the query of this request."""
        parts = urlsplit(self.path)
        container, _, name = unquote(parts.path).removeprefix(f"/{ACCOUNT}/").partition("/")
        return container, name, parse_qs(parts.query)

    def send_blob(self, data: bytes) -> None:
        first, _, last = self.headers.get("x-ms-range", "").removeprefix("bytes=").partition("-")
        start, end = int(first or 0), min(int(last or len(data) - 1), len(data) - 1)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"bytes {start}-{end}/{len(data)}",
            "x-ms-blob-type": "BlockBlob",
        }
        self.answer(206 if first else 200, data[start : end + 1], **headers)

    def list(self, container: str, prefix: str, delimiter: str) -> None:
        blobs = self.server.containers[container]
        found, folders = [], set()
        for name in sorted(name for name in blobs if name.startswith(prefix)):
            head, between, _ = name[len(prefix) :].partition(delimiter or "\0")
            if between:
                folders.add(prefix + head + between)
                continue
            found.append(
                f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{_TIME}"
                f"</Last-Modified><Etag>0x1</Etag><Content-Length>{len(blobs[name])}"
                "</Content-Length><Content-Type>application/octet-stream</Content-Type>"
                "<BlobType>BlockBlob</BlobType></Properties>"
                "<Metadata><is_directory>false</is_directory></Metadata></Blob>"
            )
        for name in sorted(folders):
            found.append(f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>")
        body = (
            '<?xml version="1.0" encoding="UTF-8" standalone="yes"?><EnumerationResults '
            f'ServiceEndpoint="{self.server.url}/{ACCOUNT}" ContainerName="{container}">'
            f"<Prefix>{escape(prefix)}</Prefix><Blobs>{''.join(found)}</Blobs><NextMarker />"
            "</EnumerationResults>"
        )
        self.answer(200, body.encode(), **{"Content-Type": "application/xml"})

    def refuse(self, code: str) -> None:
        self.answer(404, **{"x-ms-error-code": code})

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        common = {"ETag": '"0x1"', "Last-Modified": _TIME, "x-ms-version": "2025-01-05"}
        for name, value in {**common, **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
