"""What a host's address says about who can reach it.

It opens no socket, and resolves no name.
"""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host's address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
