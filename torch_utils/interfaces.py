"""Which network interface leads to another machine."""
import socket

import psutil


def interface_towards(host: str) -> str | None:
    """Name of the interface through which this machine reaches a host (or is that host); None if there is no route.

    Nothing is sent: only the routing table of the system is read.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            own = probe.getsockname()[0]
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.family == family and each.address.partition("%")[0] == own for each in addresses):
            return name
    return None
