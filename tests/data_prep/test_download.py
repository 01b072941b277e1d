"""Against a real server on loopback: what was interrupted goes on, and never mixes two versions."""

import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from socket import EAI_NONAME, gaierror

import numpy as np
import pytest

from data_prep.download import DamagedError, fetch, part_path
from data_prep.progress import Progress
from data_prep.web import Patience, Remote, probe
from pix2pix.errors import UserError
from tests.web_server import (
    WebServer,
    announce,
    cut_after,
    damage,
    hang_up,
    ignore_changes,
    ignore_ranges,
    other_range,
    stall_after,
    status,
    well,
)

DATA = np.random.default_rng(0).bytes(200_000)
OTHER = np.random.default_rng(1).bytes(150_000)
CUT = 70_000


@pytest.fixture
def server():
    with WebServer() as server:
        server.files["/file"] = DATA
        yield server


class Client:
    """Fetches /file into a folder, without real waits between the tries."""

    def __init__(self, server: WebServer, folder: Path) -> None:
        self.server, self.target = server, folder / "file"
        self.waits: list[float] = []
        self.patience = Patience(tries=4, sleep=self.waits.append)

    def probe(self) -> Remote:
        return probe(f"{self.server.url}/file", self.patience, print)

    def fetch(self, remote: Remote | None = None, check=lambda part: None) -> bytes:
        """The file that was fetched; nothing else is left of it."""
        with Progress("bytes") as progress:
            fetch(remote or self.probe(), self.target, check, self.patience, progress)
        assert [path.name for path in self.target.parent.iterdir()] == ["file"]
        return self.target.read_bytes()

    @property
    def starts(self) -> list[int]:
        """First bytes that were asked for, after the probe."""
        return [asked.start for asked in self.server.asked[1:]]


@pytest.fixture
def client(server, tmp_path):
    return Client(server, tmp_path)


def whole(expected: bytes):
    def check(part: Path) -> None:
        if part.read_bytes() != expected:
            raise DamagedError("bytes differ")

    return check


def test_a_file_arrives(client):
    assert client.fetch() == DATA
    assert client.starts == [0]
    assert client.waits == []


def test_a_connection_that_is_cut_goes_on_where_it_was(client, server, capfd):
    server.faults.extend([well, cut_after(CUT), cut_after(CUT)])
    assert client.fetch() == DATA
    assert client.starts == [0, CUT, 2 * CUT]
    assert "file: the connection ended after 70.0 kB; try 2 of 4 in " in capfd.readouterr().err


def test_a_server_that_falls_silent_is_asked_again(client, server, capfd):
    server.faults.extend([well, stall_after(CUT)])
    client.patience = replace(client.patience, timeout_seconds=0.3)
    assert client.fetch() == DATA
    assert client.starts == [0, CUT]
    assert "file: the server fell silent; try 2" in capfd.readouterr().err


@pytest.mark.parametrize("fault", [status(500), status(503), status(429), hang_up])
def test_a_failure_that_may_pass_is_tried_again(client, server, fault):
    server.faults.extend([fault, well, fault, cut_after(CUT), fault, fault])
    assert client.fetch() == DATA
    assert [asked.start for asked in server.asked] == [0, 0, 0, 0, CUT, CUT, CUT]
    assert len(client.waits) == 5


def test_tries_are_bounded_and_what_has_come_stays(client, server):
    server.faults.extend([well, cut_after(CUT), *[status(500)] * 3])
    with pytest.raises(UserError, match=r"file: the server answered 500 .* Given up after 4 tries"):
        client.fetch()
    assert client.starts == [0, CUT, CUT, CUT]
    assert client.fetch() == DATA
    assert server.asked[-1].start == CUT


def test_whatever_comes_starts_the_count_of_tries_anew(client, server):
    server.faults.extend([well, *[cut_after(20_000)] * 8])
    assert client.fetch() == DATA
    assert client.starts == [20_000 * n for n in range(9)]


def test_a_server_that_never_gets_further_is_given_up(client, server):
    def cut_without_ranges(handler, data):
        handler.answer(data, ranges=False, cut=CUT)

    server.faults.extend([well, *[cut_without_ranges] * 9])
    with pytest.raises(UserError, match="Given up"):
        client.fetch()
    assert client.starts == [0, CUT, CUT, CUT]


@pytest.mark.parametrize("code", [401, 403, 404, 410, 501])
def test_a_refusal_for_good_is_an_error_at_once(client, server, code):
    server.faults.append(status(code))
    with pytest.raises(UserError, match=rf"/file cannot be had: the server answered {code} "):
        client.probe()
    assert (len(server.asked), client.waits) == (1, [])


def test_nobody_at_that_address_is_an_error_that_says_so(client, server, monkeypatch):
    def resolve(*_, **__):  # without a network, a resolver may take its time
        raise gaierror(EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as patch:
        patch.setattr("socket.getaddrinfo", resolve)
        with pytest.raises(UserError, match="cannot be reached: Name or service not known"):
            probe("http://host.invalid/file", client.patience, print)
    with pytest.raises(UserError, match="is no address of a file"):
        probe("http://127.0.0.1:port/file", client.patience, print)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"no connection \(Connection refused\). Given up after 4"):
        client.probe()
    assert len(client.waits) == 3


def test_waits_double_by_chance_up_to_a_limit():
    patience = Patience(first_seconds=1, most_seconds=60)
    for failures, longest in [(1, 1), (2, 2), (5, 16), (7, 60), (12, 60)]:
        delays = [patience.delay(failures) for _ in range(50)]
        assert longest / 2 <= min(delays) < max(delays) <= longest


def test_the_wait_that_a_server_asks_for_is_kept(client, server):
    date = formatdate(time.time() + 200, usegmt=True)
    server.faults.extend(
        status(503, Retry_After=value) for value in ("120", date, "1000000", "soon", "-5")
    )
    client.patience = Patience(tries=9, sleep=client.waits.append, most_seconds=1)
    client.probe()
    assert client.waits[0] == 120
    assert 190 < client.waits[1] <= 200
    assert client.waits[2] == 600
    assert max(client.waits[3:]) <= 1


def test_a_server_without_ranges_starts_over(client, server, capfd):
    server.faults.extend([well, cut_after(CUT), ignore_ranges])
    assert client.fetch() == DATA
    assert client.starts == [0, CUT]
    assert "the server does not resume; starting over" in capfd.readouterr().err


@pytest.mark.parametrize("sends_tags", [True, False])
def test_a_file_that_changes_between_two_requests_is_not_spliced(client, server, sends_tags, capfd):
    server.sends_tags = sends_tags  # without tags, the size tells

    def change(handler, data):
        server.files["/file"] = OTHER
        handler.answer(OTHER)

    server.faults.extend([well, cut_after(CUT), change])
    assert client.fetch() == OTHER
    assert client.starts == ([0, CUT] if sends_tags else [0, CUT, 0])
    assert "starting over" in capfd.readouterr().err


def test_a_change_that_nothing_tells_is_not_spliced_when_all_of_it_comes(client, server):
    changed = OTHER + OTHER[: len(DATA) - len(OTHER)]  # the same size, and no tags

    def change(handler, data):
        server.files["/file"] = changed
        handler.answer(changed, ranges=False, cut=CUT // 2)

    server.sends_tags = False
    server.faults.extend([well, cut_after(CUT), change])
    assert client.fetch() == changed
    assert client.starts == [0, CUT, CUT // 2]


def test_another_range_than_was_asked_for_is_not_taken(client, server):
    server.faults.extend([well, cut_after(CUT), other_range])
    assert client.fetch() == DATA
    assert client.starts == [0, CUT, 0]


def test_a_file_that_changes_is_not_spliced_where_the_server_heeds_no_if_range(client, server):
    def change(handler, data):
        server.files["/file"] = OTHER
        ignore_changes(handler, OTHER)

    server.faults.extend([well, cut_after(CUT), change])
    assert client.fetch() == OTHER
    assert client.starts == [0, CUT, 0]


def test_a_file_that_changed_since_an_earlier_run_is_not_spliced(client, server, capfd):
    server.faults.extend([well, cut_after(CUT), *[status(500)] * 3])
    with pytest.raises(UserError):
        client.fetch()
    server.files["/file"] = OTHER
    assert client.fetch() == OTHER
    assert server.asked[-1].start == 0
    assert "another version than the 70.0 kB that had come" in capfd.readouterr().err


def test_a_part_that_is_whole_is_not_asked_for(client, server):
    remote = client.probe()
    part_path(client.target, remote).write_bytes(DATA)
    assert client.fetch(remote) == DATA
    assert client.starts == []


@pytest.mark.parametrize("announced", [len(DATA) + 1000, -1])
def test_a_part_that_is_whole_against_what_was_announced_ends_with_416(client, server, announced):
    server.faults.append(announce(announced))
    remote = client.probe()
    part_path(client.target, remote).write_bytes(DATA)
    assert client.fetch(remote) == DATA
    assert client.starts == [len(DATA)]


def test_a_part_longer_than_the_file_starts_over(client, server):
    server.faults.append(announce(-1))
    remote = client.probe()
    part_path(client.target, remote).write_bytes(DATA + b"more")
    assert client.fetch(remote) == DATA
    assert client.starts == [len(DATA) + 4, 0]


def test_an_announced_length_that_is_too_long_ends_all_the_same(client, server):
    server.faults.extend([announce(len(DATA) + 1000)] * 2)
    assert client.fetch() == DATA
    assert client.starts == [0, len(DATA)]


def test_an_announced_length_that_is_too_short_is_damage_and_got_again(client, server, capfd):
    server.faults.extend([announce(CUT)] * 2)
    assert client.fetch(check=whole(DATA)) == DATA
    assert "file came damaged (bytes differ); getting it again" in capfd.readouterr().err


def test_damage_is_got_again_once_then_an_error(client, server):
    server.faults.extend([well, damage])
    assert client.fetch(check=whole(DATA)) == DATA
    client.target.unlink()
    server.faults.extend([well, damage, damage])
    with pytest.raises(UserError, match=r"came damaged, twice now \(bytes differ\)"):
        client.fetch(check=whole(DATA))
    assert list(client.target.parent.iterdir()) == []


def test_a_redirect_is_followed_with_its_range(client, server):
    server.files["/elsewhere"] = DATA
    move = status(302, Location="/elsewhere")
    server.faults.extend([move, well, move, cut_after(CUT), move])
    assert client.fetch() == DATA
    assert [(asked.path, asked.start) for asked in server.asked[-2:]] == [
        ("/file", CUT),
        ("/elsewhere", CUT),
    ]


def test_a_weak_tag_is_no_condition_for_a_range():
    remote = Remote("http://host/file", 5, 'W/"1"', "Sat, 01 Jan 2022 00:00:00 GMT")
    assert remote.validator == "Sat, 01 Jan 2022 00:00:00 GMT"
    assert Remote("http://host/file", 5, '"1"', None).validator == '"1"'
