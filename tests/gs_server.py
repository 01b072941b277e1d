"""A real server of Google Cloud Storage's protocol on loopback: the emulator, in a thread."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # as pix2pix.data.store does


@contextmanager
def gs_server(monkeypatch: pytest.MonkeyPatch, bucket: str) -> Iterator[Mapping[str, str]]:
    """Serve an empty bucket, and let this process find it; yields the environment that does."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=bucket)
    server.start()
    try:
        port = server._api._httpd.server_address[1]
        environment = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        file_system()
        yield environment
    finally:
        server.stop()


def file_system():
    """gcsfs, which keeps nothing of an earlier server."""
    import gcsfs

    gcsfs.GCSFileSystem.clear_instance_cache()
    return gcsfs.GCSFileSystem()
