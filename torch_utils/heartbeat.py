"""Heartbeats of the processes of a job, so that those that wait for a lost one can name it.

Every rank writes a number that grows into the store that the job meets at. A rank whose number stands still was killed
or stopped, or its machine is gone.
"""
import contextlib
import datetime
import socket
import threading
import time
from collections.abc import Collection

import torch.distributed as dist

BEAT_SEC = 1.0
PATIENCE_SEC = 5.0  # a rank that has not given a sign of life for so long is gone
_STAY_SEC = 4 * PATIENCE_SEC  # of rank 0 at most, whose process holds the store, so that the others can read it
_STORE_TIMEOUT_SEC = 3.0
_FAILED = "failed: "
_MAX_REASON = 300  # characters


class Heartbeat:
    """Writes this rank's signs of life from a thread of its own, and reads those of the others when asked.

    Args:
        rank: of this process, among `world_size`.
        world_size: number of processes.
        host: where the job's store is.
        port: likewise.
    """

    def __init__(self, rank: int, world_size: int, host: str, port: int) -> None:
        self.rank, self.world_size = rank, world_size
        self._address = host, port
        self._ended = threading.Event()
        self._beats = 0
        self._store = self._connect()
        self._write(str(self._beats))
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _connect(self) -> dist.TCPStore:
        """A connection of its own, since a store serves one request at a time.

        Raises:
            RuntimeError: the store does not answer.
        """
        try:  # first, because torch prints pages where this is one line
            socket.create_connection(self._address, timeout=_STORE_TIMEOUT_SEC).close()
        except OSError as error:
            raise RuntimeError(f"the store does not answer: {error}") from error
        timeout = datetime.timedelta(seconds=_STORE_TIMEOUT_SEC)
        return dist.TCPStore(*self._address, is_master=False, wait_for_workers=False, timeout=timeout)

    def _write(self, text: str) -> None:
        self._store.set(f"heartbeat/{self.rank}", text)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SEC):
            self._beats += 1
            try:
                self._write(str(self._beats))
            except RuntimeError:
                self._reconnect()

    def _reconnect(self) -> None:
        """After a request that failed, a connection may be out of step."""
        while not self._ended.wait(BEAT_SEC):
            with contextlib.suppress(RuntimeError):
                self._store = self._connect()
                return

    def stop(self) -> None:
        """Ends the signs of life; before the process leaves."""
        self._ended.set()
        self._thread.join(2 * _STORE_TIMEOUT_SEC)

    def report_failure(self, reason: str) -> None:
        """Leaves word for the others that this rank ends, and why."""
        self.stop()
        with contextlib.suppress(RuntimeError):
            self._connect().set(f"heartbeat/{self.rank}", _FAILED + reason[:_MAX_REASON])

    def hold_store(self, gone: Collection[int]) -> None:
        """Keeps rank 0 until the ranks that are not in `gone` have failed as well, or are gone too.

        The store ends with its process, and those ranks may still be reading who is gone. Other ranks do not wait.
        """
        if self.rank != 0:
            return
        deadline = time.monotonic() + _STAY_SEC
        left = set(range(1, self.world_size)) - set(gone)
        while left and time.monotonic() < deadline:
            left -= self.lost(left).keys()
            time.sleep(BEAT_SEC / 4)

    def lost(self, among: Collection[int] | None = None) -> dict[int, str]:
        """Ranks that have failed or give no signs of life, and what is known of each; takes up to PATIENCE_SEC.

        If the store itself does not answer, rank 0 is taken to be lost: it or its machine holds the store.

        Args:
            among: the ranks that are looked at; None is all others.
        """
        deadline = time.monotonic() + PATIENCE_SEC
        among = range(self.world_size) if among is None else among
        try:
            store = self._connect()
            others = {rank: f"heartbeat/{rank}" for rank in among if rank != self.rank}
            first = {rank: _read(store, key) for rank, key in others.items()}
            silent = dict(first)
            while not all(map(_has_failed, silent.values())) and time.monotonic() < deadline:
                time.sleep(BEAT_SEC / 4)
                now = {rank: _read(store, others[rank]) for rank in silent}
                silent = {rank: text for rank, text in now.items() if text == first[rank] or _has_failed(text)}
        except RuntimeError:
            return {0: _GONE}
        return {rank: text if _has_failed(text) else _GONE for rank, text in silent.items()}


_GONE = "gives no sign of life: it was killed or stopped, or its machine or network is gone"


def _read(store: dist.TCPStore, key: str) -> str:
    return bytes(store.get(key)).decode(errors="replace") if store.check([key]) else ""


def _has_failed(text: str) -> bool:
    return text.startswith(_FAILED)
