"""Promises of fetching from stores: a real S3 server on loopback, and causes in one sentence."""

import socketserver
import ssl
import sys
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.server import ThreadedMotoServer

from data_prep.stores import list_store
from pix2pix.data import fetch
from pix2pix.data.fetch import FetchError, read_all
from pix2pix.data.shards import open_split, read_manifest
from pix2pix.data.store import within
from pix2pix.errors import UserError
from tests.web_server import OnLoopback, WebServer

LOOPBACK = IPv4Address("127.0.0.1")


@pytest.fixture(scope="module")
def store(tiny_shards):
    """The endpoint of an S3 server with the bucket "photos", which holds the shards."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="me",
        aws_secret_access_key="hush",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="photos")
    for path in tiny_shards.iterdir():
        if path.is_file():
            client.upload_file(str(path), "photos", f"shards/{path.name}")
    yield endpoint
    server.stop()


@pytest.fixture
def credentials(store, monkeypatch):
    """What the tools of the store look for in the environment."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # an instance keeps the endpoint of an earlier test
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def test_a_split_in_a_bucket_is_that_of_the_folder(tiny_shards, credentials):
    split = open_split("s3://photos/shards", "train")
    assert split == open_split(tiny_shards, "train")
    name = split.shards[0].name
    data = read_all(f"s3://photos/shards/{name}", 2**20)
    assert data == (tiny_shards / name).read_bytes()


@pytest.mark.parametrize("place", ["s3://photos/absent", "s3://no-such-bucket/shards"])
def test_a_bucket_or_a_file_that_is_not_there_is_named(credentials, place):
    with pytest.raises(UserError, match=f"cannot fetch {place}/manifest.json: it is not there"):
        read_manifest(place)


def test_credentials_that_are_missing_are_named(store, credentials, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UserError, match="credentials may be missing"):
        read_manifest("s3://photos/shards")


@pytest.mark.parametrize(
    ("url", "package", "wanted"),
    [
        ("s3://bucket/x", "s3fs", "-e '.[s3]'"),
        ("gs://bucket/x", "gcsfs", "-e '.[gs]'"),
        ("az://container/x", "adlfs", "-e '.[az]'"),
        ("hf://datasets/owner/name/x", "huggingface_hub", "huggingface_hub"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    monkeypatch, url, package, wanted
):
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    with pytest.raises(FetchError) as caught:
        read_all(url, 10)
    assert package in str(caught.value)
    assert f"pip install {wanted}" in str(caught.value)


class SilentServer(OnLoopback):
    """Accepts, and says nothing but `first`."""

    def __init__(self, first: bytes) -> None:
        super().__init__(_SayLittle)
        self.first = first


class _SayLittle(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.server.first)
        self.server.closing.wait()


# What s3fs asks first is the headers, and then the bytes: this answers the one, not the other.
HEADERS = b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nETag: "x"\r\n\r\n'


@pytest.mark.parametrize("first", [b"", HEADERS], ids=["no answer", "then silence"])
def test_a_silent_store_is_one_sentence_and_no_hang(monkeypatch, credentials, first):
    import s3fs

    monkeypatch.setattr("pix2pix.data.store.ANSWER_SECONDS", 2.0)
    with SilentServer(first) as server:
        host = f"127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(FetchError) as caught:
            read_all("s3://photos/shards/manifest.json", 10**6)
    cause = "the server does not answer, or has fallen silent"
    assert str(caught.value) == (
        f"cannot fetch s3://photos/shards/manifest.json: {cause} (at {host})"
    )


def test_a_listing_of_a_silent_store_ends_too(monkeypatch, credentials):
    import s3fs

    monkeypatch.setattr("data_prep.stores._LIST_SECONDS", 1.0)
    with SilentServer(b"") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(UserError, match="cannot list s3://photos/shards: the server does not"):
            list_store("s3://photos/shards")


@pytest.fixture
def untrusted(tmp_path):
    """A real https server whose certificate nobody signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with WebServer() as server:
        server.files["/manifest.json"] = b"{}"
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield server.url.replace("http:", "https:")


def test_a_certificate_that_is_not_to_be_trusted_is_named(untrusted):
    with pytest.raises(UserError) as caught:
        read_manifest(untrusted)
    assert str(caught.value) == (
        f"cannot fetch {untrusted}/manifest.json: its certificate is not to be trusted"
    )


def test_a_stores_certificate_that_is_not_to_be_trusted_is_named(
    untrusted, credentials, monkeypatch
):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", untrusted)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError) as caught:
        read_manifest("s3://photos/shards")
    assert str(caught.value) == (
        "cannot fetch s3://photos/shards/manifest.json: its certificate is not to be trusted "
        f"(at {untrusted.removeprefix('https://')})"
    )


def test_what_a_slow_library_raises_is_raised_and_what_is_late_is_a_timeout():
    assert within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        within(5, lambda: {}["x"])
    with pytest.raises(TimeoutError):
        within(0.05, threading.Event().wait)


def test_where_curl_is_missing_it_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FetchError, match="it needs the program curl"):
        read_all("http://127.0.0.1:1/x", 10)


def test_what_is_larger_than_expected_is_not_read_to_the_end(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_all(str(tmp_path / "x"), 5) == b"12345"
    with pytest.raises(FetchError, match="more than 4 bytes"):
        read_all(str(tmp_path / "x"), 4)


def test_webdataset_is_imported_only_where_a_url_is_opened(tmp_path):
    assert "webdataset" not in vars(fetch)
    assert sys.modules[fetch.__name__] is fetch
