"""Addresses at which other hosts reach a server that listens on all addresses."""

import socket
from types import SimpleNamespace

import psutil
import pytest

from gateway_core.net.interfaces import reachable_hosts


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    def at(family, address):
        return SimpleNamespace(family=family, address=address)

    interfaces = {
        "lo": [at(socket.AF_INET, "127.0.0.1"), at(socket.AF_INET6, "::1")],
        "eth0": [
            at(socket.AF_INET6, "fe80::1%eth0"),
            at(socket.AF_INET6, "fd00::2"),
            at(socket.AF_INET, "192.0.2.2"),
            at(-1, "02:00:00:00:00:01"),
        ],
        "docker0": [at(socket.AF_INET, "172.17.0.1"), at(socket.AF_INET, "169.254.1.1")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces)
    monkeypatch.setattr(socket, "gethostname", lambda: "server")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", ["192.0.2.2", "172.17.0.1", "server"]),
        ("::", ["192.0.2.2", "172.17.0.1", "[fd00::2]", "server"]),
        ("[::]", ["192.0.2.2", "172.17.0.1", "[fd00::2]", "server"]),
        ("127.0.0.1", []),
        ("192.0.2.2", []),
    ],
)
def test_only_addresses_that_other_hosts_can_reach_are_listed(host, expected):
    assert reachable_hosts(host) == expected


def test_a_machine_without_a_name_of_its_own_lists_addresses_only(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    assert reachable_hosts("0.0.0.0") == ["192.0.2.2", "172.17.0.1"]
