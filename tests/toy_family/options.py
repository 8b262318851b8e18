"""The options of train.py for the toy family: there are none of its own."""
from typing import Any

from dnnlib import EasyDict
from training import options as shared
from training.run_config import Component, EMAConfig, NetworksConfig, OptimizersConfig, RunConfig

OPTION_NAMES: tuple[str, ...] = ()


def add(command: Any) -> Any:
    """Adds no option."""
    return command


def check(opts: EasyDict, given: set[str]) -> None:
    """Allows everything."""


def training_config(opts: EasyDict, data: shared.DataInfo) -> RunConfig:
    """The configuration of a run."""
    return RunConfig(
        data=shared.data_config(opts, data),
        networks=NetworksConfig(
            G=Component("tests.toy_family.networks.ToyGenerator", {"z_dim": 4}),
            D=Component("tests.toy_family.networks.ToyDiscriminator"),
            init=shared.initial_weights(opts),
        ),
        optimizers=OptimizersConfig(G=shared.adam(1e-3, 0.99, 1e-8), D=shared.adam(1e-3, 0.99, 1e-8),
                                    G_reg_interval=None, D_reg_interval=None),
        loss=Component("training.loss_biggan.HingeLoss"),
        augmentation=shared.augmentation_config(opts, default_aug="noaug"),
        ema=EMAConfig(kimg=0.01),
        schedule=shared.schedule_config(opts, kimg=1, batch=opts.batch or 4, batch_gpu=2),
        metrics=shared.metrics_config(opts),
        machine=shared.machine_config(opts),
    )
