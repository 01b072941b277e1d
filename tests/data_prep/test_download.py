"""Against a real server on loopback: what was interrupted goes on, and what is damaged is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_prep.download import DamagedError, Patience, ask_size, fetch, part_path
from pix2pix.errors import UserError
from tests.web_server import (
    WebServer,
    announce,
    cut_after,
    damage,
    hang_up,
    ignore_ranges,
    other_range,
    stall_after,
    status,
    well,
)

DATA = np.random.default_rng(0).bytes(200_000)
OTHER = np.random.default_rng(1).bytes(150_000)
CUT = 70_000
NO_HOST = f"http://{'x' * 70}"  # too long for a name: no server is asked for it


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

    def ask_size(self) -> int | None:
        return ask_size(f"{self.server.url}/file", self.patience)

    def fetch(self, check=lambda part: None) -> bytes:
        """The file that was fetched; nothing else is left of it."""
        fetch(f"{self.server.url}/file", self.target, check, self.patience)
        assert [path.name for path in self.target.parent.iterdir()] == ["file"]
        return self.target.read_bytes()

    @property
    def starts(self) -> list[int]:
        """First bytes that were asked for."""
        return [asked.start for asked in self.server.asked]


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
    server.faults.extend([cut_after(CUT), cut_after(CUT)])
    assert client.fetch() == DATA
    assert client.starts == [0, CUT, 2 * CUT]
    assert "file: transfer closed with 130000 bytes remaining" in capfd.readouterr().err


def test_a_server_that_falls_silent_is_asked_again(client, server, capfd):
    server.faults.extend([stall_after(CUT)])
    client.patience = replace(client.patience, timeout_seconds=1)
    assert client.fetch() == DATA
    assert client.starts == [0, CUT]
    assert "file: Operation too slow." in capfd.readouterr().err


@pytest.mark.parametrize("fault", [status(500), status(503), status(429), hang_up])
def test_a_failure_that_may_pass_is_tried_again(client, server, fault):
    server.faults.extend([fault, cut_after(CUT), fault, fault])
    assert client.fetch() == DATA
    assert client.starts == [0, 0, CUT, CUT, CUT]
    assert len(client.waits) == 4


def test_tries_are_bounded_and_what_has_come_stays(client, server):
    server.faults.extend([cut_after(CUT), *[status(500)] * 3])
    with pytest.raises(UserError, match=r"file: .* error: 500.* Given up after 4 tries"):
        client.fetch()
    assert client.starts == [0, CUT, CUT, CUT]
    assert client.fetch() == DATA
    assert server.asked[-1].start == CUT


def test_whatever_comes_starts_the_count_of_tries_anew(client, server):
    server.faults.extend([cut_after(20_000)] * 8)
    assert client.fetch() == DATA
    assert client.starts == [20_000 * n for n in range(9)]


def test_a_server_that_never_gets_further_is_given_up(client, server):
    def cut_without_ranges(handler, data):
        handler.answer(data, ranges=False, cut=CUT)

    server.faults.extend([cut_without_ranges] * 9)
    with pytest.raises(UserError, match="Given up"):
        client.fetch()
    assert client.starts == [0, CUT, 0, CUT]


@pytest.mark.parametrize("code", [401, 403, 404, 410, 501])
def test_a_refusal_for_good_is_an_error_at_once(client, server, code):
    server.faults.append(status(code))
    with pytest.raises(UserError, match=rf"/file cannot be had: .* error: {code}"):
        client.fetch()
    assert (len(server.asked), client.waits) == (1, [])


def test_nobody_at_that_address_is_an_error_that_says_so(client, server):
    def fetch_from(url):
        fetch(url, client.target, print, client.patience)

    with pytest.raises(UserError, match="cannot be had: Could not resolve host: xxx"):
        fetch_from(f"{NO_HOST}/file")
    with pytest.raises(UserError, match="cannot be had: URL using bad"):
        fetch_from("http://127.0.0.1:port/file")
    assert client.waits == []
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"Failed to connect to .*\. Given up after 4"):
        client.fetch()
    assert len(client.waits) == 3


def test_a_name_that_no_longer_resolves_is_tried_again(client):
    part_path(client.target).write_bytes(DATA[:CUT])
    with pytest.raises(UserError, match=r"Could not resolve host.*\. Given up after 4 tries"):
        fetch(f"{NO_HOST}/file", client.target, print, client.patience)
    assert part_path(client.target).read_bytes() == DATA[:CUT]


def test_curl_is_named_where_it_is_missing(client, monkeypatch):
    monkeypatch.setenv("PATH", "")
    for need in (client.ask_size, client.fetch):
        with pytest.raises(UserError, match="need the program curl; install it"):
            need()


def test_waits_double_by_chance_up_to_a_limit():
    patience = Patience(first_seconds=1, most_seconds=60)
    for failures, longest in [(1, 1), (2, 2), (5, 16), (7, 60), (12, 60)]:
        delays = [patience.delay(failures) for _ in range(50)]
        assert longest / 2 <= min(delays) < max(delays) <= longest


def test_the_wait_that_a_server_asks_for_is_kept(client, server):
    server.faults.extend(status(503, Retry_After=v) for v in ("120", "1000000", "soon", "-5"))
    client.patience = Patience(tries=9, sleep=client.waits.append, most_seconds=1)
    assert client.fetch() == DATA
    assert client.waits[:2] == [120, 600]
    assert max(client.waits[2:]) <= 1


def test_a_server_without_ranges_starts_over(client, server, capfd):
    server.faults.extend([cut_after(CUT), ignore_ranges])
    assert client.fetch() == DATA
    assert client.starts == [0, CUT, 0]
    assert "the server does not resume; starting over" in capfd.readouterr().err


def test_another_range_than_was_asked_for_is_not_taken(client, server):
    server.faults.extend([cut_after(CUT), other_range])
    assert client.fetch() == DATA
    assert client.starts == [0, CUT, 0]


def test_a_file_that_changes_on_the_server_is_got_anew(client, server, capfd):
    part_path(client.target).write_bytes(DATA[:CUT])  # of an earlier run
    server.files["/file"] = OTHER
    assert client.fetch(whole(OTHER)) == OTHER
    assert client.starts == [CUT, 0]
    assert "file came damaged (bytes differ); getting it again" in capfd.readouterr().err


def test_a_part_that_is_whole_is_not_sent_again(client, server):
    part_path(client.target).write_bytes(DATA)
    assert client.fetch(whole(DATA)) == DATA
    assert client.starts == [len(DATA)]


def test_a_part_longer_than_the_file_starts_over(client):
    part_path(client.target).write_bytes(DATA + b"more")
    assert client.fetch(whole(DATA)) == DATA
    assert client.starts == [len(DATA) + 4, 0]


def test_an_announced_length_that_is_too_long_ends_all_the_same(client, server):
    server.faults.append(announce(len(DATA) + 1000))
    assert client.fetch(whole(DATA)) == DATA
    assert client.starts == [0, len(DATA)]


def test_an_announced_length_that_is_too_short_is_damage_and_got_again(client, server):
    server.faults.append(announce(CUT))
    assert client.fetch(whole(DATA)) == DATA
    assert client.starts == [0, 0]


def test_damage_is_got_again_once_then_an_error(client, server):
    server.faults.append(damage)
    assert client.fetch(whole(DATA)) == DATA
    client.target.unlink()
    server.faults.extend([damage, damage])
    with pytest.raises(UserError, match=r"came damaged, twice now \(bytes differ\)"):
        client.fetch(whole(DATA))
    assert list(client.target.parent.iterdir()) == []


def test_a_redirect_is_followed_with_its_range(client, server):
    server.files["/elsewhere"] = DATA
    move = status(302, Location="/elsewhere")
    server.faults.extend([move, cut_after(CUT), move])
    assert client.fetch() == DATA
    assert [(asked.path, asked.start) for asked in server.asked[-2:]] == [
        ("/file", CUT),
        ("/elsewhere", CUT),
    ]


def test_the_size_is_asked_for_without_the_file(client, server):
    server.files["/elsewhere"] = DATA
    server.faults.extend([well, status(302, Location="/elsewhere"), well])
    assert [client.ask_size() for _ in range(2)] == [len(DATA)] * 2
    assert {asked.is_head for asked in server.asked} == {True}


@pytest.mark.parametrize("fault", [announce(-1), status(503), status(405), hang_up])
def test_a_size_that_a_server_does_not_say_is_unknown(client, server, fault):
    server.faults.append(fault)
    assert client.ask_size() is None


def test_a_file_that_is_not_there_is_told_when_its_size_is_asked(client, server):
    server.files.clear()
    with pytest.raises(UserError, match=r"/file cannot be had: .* error: 404"):
        client.ask_size()


def test_a_full_disk_ends_the_transfer(client, server):
    part_path(client.target).symlink_to("/dev/full")
    server.faults.append(stall_after(CUT))
    with pytest.raises(OSError, match="No space left"):
        client.fetch()
    assert "curl" not in [child.name() for child in psutil.Process().children()]
