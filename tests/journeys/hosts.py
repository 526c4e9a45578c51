"""A host and a container that is connected to it by a bridge, as network namespaces: they need root and `ip`."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BRIDGE = "172.17.0.1"
"""The address of the host in the container, which Docker's default bridge has as well."""
MISSING = "network namespaces need Linux, root and `ip` (Debian: apt-get install iproute2)"


def available() -> bool:
    """Whether namespaces can be created."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return True


@contextmanager
def host_and_container(*names: str) -> Iterator[tuple[list[str], list[str]]]:
    """Create both, and return the commands that run a program in each.

    Args:
        names: The names that mean the host in the container, as `docker run --add-host=NAME:host-gateway` defines them.
    """
    host, container = f"host-{os.getpid()}", f"box-{os.getpid()}"
    hosts = Path("/etc/netns") / container / "hosts"  # `ip netns exec` shows it as /etc/hosts
    created = []
    try:
        for name in (host, container):
            _ip("netns", "add", name)
            created.append(name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", host, "link", "add", "docker0", "type", "veth", "peer", "name", "eth0", "netns", container)
        for name, link, address in ((host, "docker0", BRIDGE), (container, "eth0", "172.17.0.2")):
            _ip("-n", name, "address", "add", f"{address}/16", "dev", link)
            _ip("-n", name, "link", "set", link, "up")
        hosts.parent.mkdir(parents=True)
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{BRIDGE} {name}\n" for name in names))
        yield ["ip", "netns", "exec", host], ["ip", "netns", "exec", container]
    finally:
        shutil.rmtree(hosts.parent, ignore_errors=True)
        for name in created:
            _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
