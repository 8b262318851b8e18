"""TensorBoard events: names, steps and dates; and runs without TensorBoard."""
import json
import math
import sys
import time
import types

import pytest

from dnnlib import EasyDict
from training.reporting import StatsWriter

STATS = {
    "Loss/G/loss": EasyDict(num=3, mean=1.5, std=0.1),
    "Timing/Gmain": EasyDict(num=0, mean=math.nan, std=math.nan),
}


class FakeWriter:
    """Stands for TensorBoard's writer."""

    def __init__(self, folder):
        self.folder, self.scalars, self.is_open = folder, [], True
        FakeWriter.last = self

    def add_scalar(self, name, value, global_step):
        self.scalars.append((name, value, global_step))

    def flush(self):
        pass

    def close(self):
        self.is_open = False


def test_scalars(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=FakeWriter))
    writer = StatsWriter(tmp_path)
    writer.write(STATS, {"fid50k_full": 7.25}, cur_nimg=12_900)
    writer.close()
    fake = FakeWriter.last
    assert fake.folder == str(tmp_path)
    assert not fake.is_open
    assert fake.scalars[0] == ("Loss/G/loss", 1.5, 12)
    assert fake.scalars[1][0] == "Timing/Gmain"
    assert fake.scalars[2:] == [("Metrics/fid50k_full", 7.25, 12)]


def test_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails
    writer = StatsWriter(tmp_path)
    writer.write(STATS, {"fid50k_full": 7.25}, cur_nimg=1)
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["stats.jsonl"]
    record = json.loads((tmp_path / "stats.jsonl").read_text())
    assert list(record) == ["Loss/G/loss", "Timing/Gmain", "timestamp"]
    assert record["Loss/G/loss"] == {"num": 3, "mean": 1.5, "std": 0.1}


@pytest.mark.filterwarnings("default")  # TensorBoard's own
def test_real_events(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = time.time()
    writer = StatsWriter(tmp_path)
    writer.write(STATS, {}, cur_nimg=12_900)
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    (event,) = events.Scalars("Loss/G/loss")
    assert (event.value, event.step) == (1.5, 12)
    assert before <= event.wall_time <= time.time()
