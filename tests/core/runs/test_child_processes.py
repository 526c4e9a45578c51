"""The list of child processes."""

import subprocess
import sys

import pytest

from gateway_core.runs import child_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list the children of threads")


def test_children_are_found_although_a_thread_ends_meanwhile(monkeypatch):
    listed = child_processes.os.listdir
    monkeypatch.setattr(child_processes.os, "listdir", lambda folder: ["0", *listed(folder), "0"])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in child_processes.attached_children()
        child.kill()
