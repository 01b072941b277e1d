"""A real S3 server on loopback: moto's, in a thread of this process."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch, bucket: str) -> Iterator[Mapping[str, str]]:
    """Serve an empty bucket, and let this process find it; yields the environment that does."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        # All servers of a process share what they hold.
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
        file_system().mkdir(bucket)
        yield {**os.environ, **environment}
    finally:
        server.stop()


def file_system():
    """s3fs, which keeps nothing of an earlier server."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    return s3fs.S3FileSystem()
