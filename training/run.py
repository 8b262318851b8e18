"""A training run in memory: everything that an exact resume must restore, together."""
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from torch_utils import distributed, misc, training_stats
from torch_utils.gradient_guard import GradientGuard

from . import optimization
from .ada import AdaController
from .data.feed import Feed
from .loss import Loss, Phase


@dataclasses.dataclass
class Run:
    """Networks, optimizers, counters and everything else that changes during training.

    Attributes:
        networks: G, D, G_ema, and augment_pipe if there is one.
        cur_nimg: images seen.
        batch_idx: iterations done.
        cur_tick: ticks done, which is the number of the present tick.
        tick_start_nimg: images seen when the present tick began.
        finished_nimg: images seen when the run was last brought to its end; -1 if never.
        stage: stage of the loss that the optimizers were started for.
        elapsed_sec: time of the processes before this one.
        stats_bytes: length of stats.jsonl.
        label_kind: of the training set's labels, one of `dnnlib.cli.LABEL_KINDS`; None without labels.
    """

    networks: dict[str, torch.nn.Module]
    phases: list[Phase]
    loss: Loss
    ada: AdaController | None
    feed: Feed
    guard: GradientGuard
    collector: training_stats.Collector
    cur_nimg: int = 0
    batch_idx: int = 0
    cur_tick: int = 0
    tick_start_nimg: int = 0
    finished_nimg: int = -1
    stage: int = 0
    elapsed_sec: float = 0.0
    stats_bytes: int = 0
    label_kind: str | None = None

    _COUNTERS = ("cur_nimg", "batch_idx", "cur_tick", "tick_start_nimg", "finished_nimg", "stage", "elapsed_sec",
                 "stats_bytes")

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; statistics are those of every rank. Collective."""
        return {
            **{name: getattr(self, name) for name in self._COUNTERS},
            "networks": {name: module.state_dict() for name, module in self.networks.items()},
            "optimizers": [opt.state_dict() for opt in optimization.optimizers(self.phases)],
            "loss": self.loss.state_dict(),
            "ada": None if self.ada is None else self.ada.state_dict(),
            "data": self.feed.state_dict(self.cur_nimg),
            "guard": self.guard.state_dict(),
            "stats": distributed.gather_objects(training_stats.get_state()),
            "collector": self.collector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores all but the data position, which the feed was built with.

        Raises:
            ValueError: a counter is none. Other errors say what else does not fit.
        """
        for name in self._COUNTERS:
            kind = float if name == "elapsed_sec" else int
            if type(state[name]) is not kind or not -1 <= state[name] < 1 << 62:
                raise ValueError(f"{name}: expected a count, found {state[name]!r}")
            setattr(self, name, state[name])
        for name, module in self.networks.items():
            module.load_state_dict(state["networks"][name])
        for opt, saved in zip(optimization.optimizers(self.phases), state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        self.loss.load_state_dict(state["loss"])
        if self.ada is not None:
            self.ada.load_state_dict(state["ada"])
        self.guard.load_state_dict(state["guard"])
        if len(state["stats"]) == distributed.world_size():
            training_stats.set_state(state["stats"][distributed.rank()])
        self.collector.load_state_dict(state["collector"])

    @property
    def augment_p(self) -> float:
        """The probability of augmentation now."""
        pipe = self.networks.get("augment_pipe")
        return 0.0 if pipe is None else float(pipe.get_buffer("p"))

    def tick_is_over(self, kimg_per_tick: float) -> bool:
        """Whether the present tick has all of its images; the first one is over after one batch."""
        if self.cur_tick == 0:
            return self.batch_idx > 0
        return self.cur_nimg >= self.tick_start_nimg + kimg_per_tick * 1000

    def start_stage(self, stage: int) -> None:
        """Begins a stage of training: resets every optimizer, and sets G to its moving average if the loss says so."""
        self.stage = stage
        if self.loss.starts_from_average():
            misc.copy_params_and_buffers(self.networks["G_ema"], self.networks["G"], require_all=True)
        for opt in optimization.optimizers(self.phases):
            opt.state.clear()
        self.loss.begin_stage()
