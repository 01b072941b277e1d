"""Promises about stop signals: the first asks, the second ends, a burst is one request."""

import os
import signal
import subprocess
import sys
import time

from pix2pix.system.signals import BURST_SECONDS, StopRequest


def test_a_first_signal_asks_and_a_second_ends_at_once():
    code = (
        "import os, signal, time\n"
        "from pix2pix.system.signals import StopRequest\n"
        "stop = StopRequest()\n"
        "with stop.listening():\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    print(stop.received.name, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "SIGUSR1"
    time.sleep(BURST_SECONDS + 0.1)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert time.monotonic() - started < 30


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
