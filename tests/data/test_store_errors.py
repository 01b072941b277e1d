"""Promises of what goes wrong at stores: one sentence, which names the host and no secret."""

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from pix2pix.data.fetch import read_all
from pix2pix.errors import UserError
from tests.az_server import KEY, connection
from tests.ranks import free_port
from tests.stores import SCHEMES
from tests.web_server import LoopbackServer

URLS = {
    "s3": "s3://photos/shards/manifest.json",
    "gs": "gs://photos/shards/manifest.json",
    "az": "az://photos/shards/manifest.json",
    "hf": "hf://datasets/me/photos/shards/manifest.json",
}
SECRET = "hush4711"
WORDS = "words of the server"


class Refusing(LoopbackServer):
    """Answers every request with `status`, and words that nobody is to repeat."""

    def __init__(self, status: int) -> None:
        super().__init__(_Refuse)
        self.status = status


class _Refuse(BaseHTTPRequestHandler):
    server: Refusing

    def do_GET(self) -> None:
        body = f'{{"error": {{"message": "{WORDS}", "code": {self.server.status}}}}}'.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def point_at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let the libraries of all stores ask `endpoint`, and know credentials."""
    import adlfs
    import s3fs
    from huggingface_hub import HfFileSystem, constants

    from tests.gs_server import file_system

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_MAX_ATTEMPTS": "1",
        "STORAGE_EMULATOR_HOST": endpoint,
        "AZURE_STORAGE_CONNECTION_STRING": connection(endpoint),
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    for system in (adlfs.AzureBlobFileSystem, s3fs.S3FileSystem, HfFileSystem):
        system.clear_instance_cache()
    file_system()


def error_at(scheme: str) -> str:
    with pytest.raises(UserError) as caught:
        read_all(URLS[scheme], 10**6)
    told = str(caught.value)
    assert SECRET not in told
    assert KEY not in told
    assert WORDS not in told
    return told


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (401, "HTTP status 401: credentials are missing or wrong"),
        (403, "HTTP status 403: access is denied; credentials may be missing"),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_store_that_denies_is_one_sentence_and_no_words_of_its_library(
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    status: int,
    cause: str,
) -> None:
    with Refusing(status) as server:
        point_at(monkeypatch, server.url)
        host = server.url.removeprefix("http://")
        assert error_at(scheme) == f"cannot fetch {URLS[scheme]}: {cause} (at {host})"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_port_where_nobody_listens_is_told_from_a_silent_server(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr("pix2pix.data.store.ANSWER_SECONDS", 3.0)  # some try for a minute
    host = f"127.0.0.1:{free_port()}"
    point_at(monkeypatch, f"http://{host}")
    cause = "the host refuses the connection, or there is none"
    assert error_at(scheme) == f"cannot fetch {URLS[scheme]}: {cause} (at {host})"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_endpoint_with_a_user_is_refused_with_the_variable_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    point_at(monkeypatch, f"http://me:{SECRET}@127.0.0.1:9000")
    told = error_at(scheme)
    name, instead = {
        "s3": ("AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY"),
        "gs": ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"),
        "az": ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_KEY"),
        "hf": ("HF_ENDPOINT", "HF_TOKEN"),
    }[scheme]
    assert f"the endpoint in {name} (host 127.0.0.1:9000) has a user or a password" in told
    assert "remove it" in told
    assert instead in told


def test_an_endpoint_with_a_user_in_a_configuration_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    file = tmp_path / "config"
    file.write_text(f"[default]\nendpoint_url = http://me:{SECRET}@127.0.0.1:{free_port()}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    assert "the endpoint_url of the AWS configuration has a user or a password" in error_at("s3")


def test_credentials_of_azure_that_are_missing_or_malformed_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9")
    for malformed in (None, f"AccountKey={SECRET}"):
        if malformed is None:
            monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
        else:
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", malformed)
        assert "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT" in error_at("az")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The host of a proxy that is not there, known with its password."""
    host = f"127.0.0.1:{free_port()}"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://me:{SECRET}@{host}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return host


def test_a_proxy_that_is_not_there_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_all("http://photos.invalid/manifest.json", 10**6)
    assert str(caught.value) == (
        "cannot fetch http://photos.invalid/manifest.json: the host refuses the connection, "
        f"through the proxy {proxy}"
    )
    point_at(monkeypatch, "http://photos.invalid")
    assert error_at("s3").endswith(f"(at photos.invalid), through the proxy {proxy}")


def test_a_process_that_reads_a_store_prints_no_tracebacks_of_its_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """gcsfs prints a traceback for each try, and a warning for each bucket."""
    with Refusing(401) as server:
        point_at(monkeypatch, server.url)
        monkeypatch.delenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT")
        code = (
            "from pix2pix.data.fetch import read_all\n"
            "from pix2pix.errors import UserError\n"
            f"try: read_all({URLS['gs']!r}, 10)\n"
            "except UserError: print('refused')\n"
            "import sys; print('gcsfs.extended_gcsfs' in sys.modules)\n"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stdout == "refused\nFalse\n"
    assert "Traceback" not in told.stderr
    assert WORDS not in told.stderr
