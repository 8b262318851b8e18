"""Finding the network interface."""
import socket

import psutil

from torch_utils.interfaces import interface_towards


def test_loopback():
    name = interface_towards("127.0.0.1")
    assert name is not None
    assert "127.0.0.1" in {address.address for address in psutil.net_if_addrs()[name]}


def test_no_way(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert interface_towards("nowhere.invalid") is None


def test_address_without_interface(monkeypatch):
    monkeypatch.setattr(psutil, "net_if_addrs", dict)
    assert interface_towards("127.0.0.1") is None
