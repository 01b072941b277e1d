"""Promises about stop signals: the first asks, the third ends, a burst is one request."""

import os
import signal
import subprocess
import sys
import time

from pix2pix.system.signals import BURST_SECONDS, StopRequest


def test_a_first_signal_asks_a_second_says_what_it_would_lose_and_a_third_ends_at_once():
    code = (
        "import os, signal, time\n"
        "from pix2pix.system.signals import StopRequest\n"
        "stop = StopRequest()\n"
        "stop.would_lose = lambda: 'the 7 steps since step 30'\n"
        "with stop.listening():\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    print(stop.received.name, flush=True)\n"
        "    while True:\n"
        "        signal.pause()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().strip() == "SIGUSR1"
        assert process.stderr.readline() == "\n"
        first = process.stderr.readline()
        assert first == "SIGUSR1: stopping after this step, saving …\n"
        time.sleep(BURST_SECONDS + 0.1)
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        second = process.stderr.readline()
        assert second.endswith(
            "another signal ends it at once and loses the 7 steps since step 30\n"
        )
        assert len(second) <= 100
        assert process.poll() is None
        time.sleep(BURST_SECONDS + 0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


def test_a_burst_of_signals_is_one_request():
    with StopRequest().listening() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert stop.received is signal.SIGTERM


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in StopRequest.signals]
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received is signal.SIGTERM
    assert [signal.getsignal(number) for number in StopRequest.signals] == before


def test_a_patient_request_survives_any_number_of_signals(monkeypatch):
    monkeypatch.setattr("pix2pix.system.signals.BURST_SECONDS", 0.0)
    with StopRequest(patient=True).listening() as stop:
        for number in (signal.SIGUSR2, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.received is signal.SIGUSR2
