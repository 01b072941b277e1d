"""Scaling: efficiency is arithmetic on rates, and bytes on the wire are counted."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pix2pix.benchmark.processes import bytes_sent
from pix2pix.benchmark.scaling import APART, TOGETHER, Side, Turn, rates, traffic

ROOT = Path(__file__).parents[2]


def turns(seconds: float, sent: float = 0.0) -> list[Turn]:
    return [Turn(seconds, sent)] * 3


def test_efficiency_compares_with_one_process_and_with_processes_that_step_apart():
    sides = {
        Side(1, TOGETHER): turns(1.0),
        Side(4, TOGETHER): turns(2.0),
        Side(4, APART): turns(1.6),
    }
    figures = rates(sides, batch_size=8)
    assert figures["samples_per_second_1"] == 8
    assert figures["samples_per_second_4"] == 16
    assert figures["efficiency_4"] == pytest.approx(0.5)
    assert figures["exchange_efficiency_4"] == pytest.approx(0.8)


def test_a_ring_sends_nearly_twice_the_gradients():
    sides = {Side(n, TOGETHER): turns(1.0, sent=1700.0) for n in (1, 2, 4)}
    figures = traffic(sides, gradient_bytes=1000)
    assert (figures["ring_bytes_2"], figures["ring_bytes_4"]) == (1000, 1500)
    assert "ring_bytes_1" not in figures
    assert figures["sent_bytes_4"] == 1700


def test_traffic_that_does_not_go_over_tcp_is_not_given_as_zero():
    assert "sent_bytes_2" not in traffic({Side(2, TOGETHER): turns(1.0)}, gradient_bytes=1000)


def test_the_bytes_that_this_process_sends_are_counted():
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        before = bytes_sent()
        thread = threading.Thread(target=sender.sendall, args=(bytes(300_000),))
        thread.start()
        with receiver:
            got = 0
            while got < 300_000:
                got += len(receiver.recv(65536))
            thread.join()
            assert bytes_sent() - before == pytest.approx(300_000, rel=0.3)


@pytest.mark.system
def test_two_processes_send_what_a_ring_would(tmp_path: Path):
    file = tmp_path / "scaling.json"
    flags = ["--image_size=64", "--width=4", "--rounds=1", "--seconds_per_turn=0.2"]
    command = [sys.executable, "scripts/benchmark.py", "scaling", *flags, "--processes=1,2"]
    run = subprocess.run([*command, "--json", file], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    figures = json.loads(file.read_text())
    assert figures["sent_bytes_2"] == pytest.approx(figures["ring_bytes_2"], rel=0.02)
    rate = figures["samples_per_second_2"] / (2 * figures["samples_per_second_1"])
    assert figures["efficiency_2"] == pytest.approx(rate)


def test_more_processes_than_cores_are_refused():
    command = [sys.executable, "scripts/benchmark.py", "scaling", "--processes=1,4096"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert "error: --processes 4096: this machine has " in run.stderr
