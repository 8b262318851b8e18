"""The configuration of a training run: typed, frozen, and the same from the command line to the training loop.

`training_options.json` holds it as one flat dictionary, whose keys are those of earlier releases. Reading such a file
imports nothing that it names: classes and functions are looked up in the registries below.
"""
import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from dnnlib import strict_json
from dnnlib.bounded import read_file
from dnnlib.errors import FileError, UserError
from dnnlib.registry import Registry

from .architectures import NETWORKS

FILE_NAME = "training_options.json"
MAX_BYTES = 1 << 20  # of that file; runs write some KiB
MAX_DEPTH = 20  # of the dictionaries in it

# Key, or name of an argument → its least and its most value. An untrusted file names them.
_BOUNDS: dict[str, tuple[float, float]] = {
    "num_gpus": (1, 1 << 14), "batch_size": (1, 1 << 20), "batch_gpu": (1, 1 << 20), "D_steps": (1, 1000),
    "G_reg_interval": (1, math.inf), "D_reg_interval": (1, math.inf), "ada_interval": (1, math.inf),
    "image_snapshot_ticks": (1, math.inf), "network_snapshot_ticks": (1, math.inf), "augment_p": (0, 1),
    "kimg_per_tick": (0, math.inf), "seed": (0, math.inf), "random_seed": (0, math.inf), "distil_seed": (0, math.inf),
    # Each of these costs something even before there is a tensor.
    "num_layers": (0, 200), "G_depth": (1, 200), "D_depth": (1, 200), "filter_size": (1, 100),
    "lrelu_upsampling": (1, 16), "margin_size": (0, 1000), "num_workers": (0, 256), "prefetch_factor": (1, 256),
    "num_G_SVs": (1, 100), "num_D_SVs": (1, 100), "num_G_SV_itrs": (1, 100), "num_D_SV_itrs": (1, 100),
}  # fmt: skip
_LENGTHS = (0, math.inf)  # of times in thousands of images
_OTHER_BOUNDS = (-math.inf, 1 << 24)  # of all other numbers

DATASETS = Registry("data set", {"training.dataset.ImageFolderDataset": "training.data.dataset.ImageFolderDataset"})
LOSSES = Registry("loss", {
    "training.loss.StyleGAN2Loss": "training.loss.StyleGAN2Loss",
    "training.loss_biggan.HingeLoss": "training.biggan.loss.HingeLoss",
    "training.stylegan3.loss.StyleGAN3Loss": "training.stylegan3.loss.StyleGAN3Loss",
})
LOSS_TERMS = Registry("loss term")
OPTIMIZERS = Registry("optimizer", {"torch.optim.Adam": "torch_utils.optimizers.Adam"})
AUGMENTATIONS = Registry("augmentation", {"training.augment.AugmentPipe": "training.augment.AugmentPipe"})
INITIALIZERS = Registry("initializer", {
    "training.transfer.from_pickle": "training.checkpoints.transfer.from_pickle",
})


@dataclasses.dataclass(frozen=True)
class Component:
    """A class or function by its registered name, and its arguments (plain values)."""

    name: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def with_arguments(self, **arguments: object) -> "Component":
        """The same with further, or other, arguments."""
        return Component(self.name, {**self.arguments, **arguments})

    def to_dict(self, name_key: str = "class_name") -> dict[str, Any]:
        """Name and arguments in one dictionary, as files have them."""
        return {name_key: self.name, **self.arguments}


def _key(name: str, registry: Registry | None = None, always: bool = False, name_key: str = "class_name") -> Any:
    """Metadata of a field: its key in the file, the registry of its component, and whether defaults are written."""
    return {"key": name, "registry": registry, "always": always, "name_key": name_key}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The training set and how it is loaded."""

    training_set: Component = dataclasses.field(metadata=_key("training_set_kwargs", DATASETS))
    loader: Mapping[str, Any] = dataclasses.field(  # arguments of torch.utils.data.DataLoader
        default_factory=dict, metadata=_key("data_loader_kwargs", always=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworksConfig:
    """Generator and discriminator, and what sets their initial weights; None leaves them random."""

    G: Component = dataclasses.field(metadata=_key("G_kwargs", NETWORKS))
    D: Component = dataclasses.field(metadata=_key("D_kwargs", NETWORKS))
    init: Component | None = dataclasses.field(
        default=None, metadata=_key("init_kwargs", INITIALIZERS, name_key="func_name"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizersConfig:
    """Optimizers of G and D, and how often their phases run."""

    G: Component = dataclasses.field(metadata=_key("G_opt_kwargs", OPTIMIZERS))
    D: Component = dataclasses.field(metadata=_key("D_opt_kwargs", OPTIMIZERS))
    D_steps: int = dataclasses.field(default=1, metadata=_key("D_steps"))  # per iteration, each on other images
    G_reg_interval: int | None = dataclasses.field(  # iterations between regularisations; None: in every one
        default=4, metadata=_key("G_reg_interval"))
    D_reg_interval: int | None = dataclasses.field(default=16, metadata=_key("D_reg_interval"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Augmentation of what D sees. The pipeline is used if p is above 0 or adapted."""

    pipe: Component | None = dataclasses.field(default=None, metadata=_key("augment_kwargs", AUGMENTATIONS))
    p: float = dataclasses.field(default=0, metadata=_key("augment_p"))  # initial probability
    ada_target: float | None = dataclasses.field(default=None, metadata=_key("ada_target"))  # None: p is fixed
    ada_interval: int = dataclasses.field(default=4, metadata=_key("ada_interval"))  # iterations between adjustments
    ada_kimg: float = dataclasses.field(default=500, metadata=_key("ada_kimg"))  # for p to go from 0 to 1
    ada_max: float = dataclasses.field(default=1, metadata=_key("ada_max"))  # upper bound of p


@dataclasses.dataclass(frozen=True, kw_only=True)
class EMAConfig:
    """The moving average of the generator."""

    kimg: float = dataclasses.field(default=10, metadata=_key("ema_kimg", always=True))  # half-life
    rampup: float | None = dataclasses.field(  # cap of the half-life as a fraction of the images seen; None: no cap
        default=None, metadata=_key("ema_rampup", always=True))
    start_kimg: float = dataclasses.field(default=0, metadata=_key("ema_start_kimg"))  # until then it is a copy of G
    buffers: bool = dataclasses.field(default=False, metadata=_key("ema_buffers"))  # average them, or copy them
    later_start_kimg: float | None = dataclasses.field(  # from there on the half-life grows ...
        default=None, metadata=_key("ema_later_start_kimg"))
    later_kimg: float = dataclasses.field(default=10, metadata=_key("ema_later_kimg"))  # ... up to this


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Length, steps and ticks. Intervals of None mean never."""

    total_kimg: float = dataclasses.field(default=25000, metadata=_key("total_kimg", always=True))
    batch_size: int = dataclasses.field(default=4, metadata=_key("batch_size", always=True))  # per step, over all ranks
    batch_gpu: int = dataclasses.field(default=4, metadata=_key("batch_gpu", always=True))  # images per pass on a rank
    kimg_per_tick: float = dataclasses.field(default=4, metadata=_key("kimg_per_tick"))
    image_snapshot_ticks: int | None = dataclasses.field(
        default=50, metadata=_key("image_snapshot_ticks", always=True))
    network_snapshot_ticks: int | None = dataclasses.field(
        default=50, metadata=_key("network_snapshot_ticks", always=True))
    random_seed: int = dataclasses.field(default=0, metadata=_key("random_seed", always=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """Metrics that are evaluated at network snapshots."""

    names: tuple[str, ...] = dataclasses.field(default=(), metadata=_key("metrics", always=True))
    options: Mapping[str, Any] = dataclasses.field(  # detectors, num_gen, num_real
        default_factory=dict, metadata=_key("metric_kwargs", always=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """Processes, device and numerical modes."""

    num_gpus: int = dataclasses.field(default=1, metadata=_key("num_gpus", always=True))  # processes
    device: str = dataclasses.field(default="auto", metadata=_key("device", always=True))  # auto, cpu, cuda or mps
    cudnn_benchmark: bool = dataclasses.field(default=True, metadata=_key("cudnn_benchmark"))
    allow_tf32: bool = dataclasses.field(default=False, metadata=_key("allow_tf32"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that determines a run but its folder."""

    data: DataConfig
    networks: NetworksConfig
    optimizers: OptimizersConfig
    loss: Component = dataclasses.field(metadata=_key("loss_kwargs", LOSSES))
    augmentation: AugmentationConfig = AugmentationConfig()
    ema: EMAConfig = EMAConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    metrics: MetricsConfig = MetricsConfig()
    machine: MachineConfig = MachineConfig()

    def changed(self, **changes: Any) -> "RunConfig":
        """A copy in which fields of the sections have other values: changed(schedule={"total_kimg": 100})."""
        sections = {
            name: dataclasses.replace(getattr(self, name), **change) if isinstance(change, dict) else change
            for name, change in changes.items()
        }
        return dataclasses.replace(self, **sections)

    def to_dict(self) -> dict[str, Any]:
        """The flat dictionary of plain values that `training_options.json` holds."""
        return {field.metadata["key"]: _plain(value, field) for field, value in _leaves(self)
                if field.metadata["always"] or _differs_from_default(field, value)}


def _leaves(config: Any) -> list[tuple[dataclasses.Field, Any]]:
    """All fields that the file has a key for, with their values, through the sections."""
    leaves = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        leaves += [(field, value)] if field.metadata else _leaves(value)
    return leaves


def _differs_from_default(field: dataclasses.Field, value: object) -> bool:
    return field.default is dataclasses.MISSING or value != field.default


def _plain(value: object, field: dataclasses.Field) -> Any:
    if isinstance(value, Component):
        return value.to_dict(field.metadata["name_key"])
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The configuration that a flat dictionary holds; the opposite of `RunConfig.to_dict`.

    Raises:
        UserError: a key is missing or unknown, or a value has the wrong type; the message names the key.
    """
    remaining = dict(values)
    config = _section(RunConfig, remaining)
    if remaining:
        raise UserError(f"unknown key {sorted(map(str, remaining))[0]!r:.80}")
    return config


def _section(cls: Any, remaining: dict[str, Any]) -> Any:
    """Takes the fields of a dataclass out of the dictionary."""
    hints = get_type_hints(cls)
    arguments = {}
    for field in dataclasses.fields(cls):
        if not field.metadata:
            arguments[field.name] = _section(hints[field.name], remaining)
            continue
        key = field.metadata["key"]
        if key in remaining:
            value = remaining.pop(key)
            _check_numbers(key, value)
            arguments[field.name] = _checked(key, value, hints[field.name], field)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"the key {key!r} is missing")
    return cls(**arguments)


def _checked(key: str, value: object, hint: object, field: dataclasses.Field) -> Any:
    """A value of the file as the field's type, which is checked."""
    options = get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if Component in options and not (value is None and type(None) in options):
        return _component(key, value, field)
    for option in options:
        origin = get_origin(option) or option
        if origin is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        if origin is Mapping and isinstance(value, dict):
            return value
        if origin is float and type(value) in (int, float):
            return value
        if origin in (int, bool, str, type(None)) and type(value) is origin:
            return value
    names = {type(None): "null", tuple: "a list of texts", Mapping: "a dictionary"}
    expected = " or ".join(names.get(get_origin(o) or o, getattr(o, "__name__", str(o))) for o in options)
    raise UserError(f"{key}: expected {expected}, found {value!r:.80}")


def _check_numbers(path: str, value: object) -> None:
    """Compares all numbers in a value with the bounds of their names."""
    waiting = [(path, value)]
    while waiting:
        path, inner = waiting.pop()
        if isinstance(inner, dict):
            waiting += [(f"{path}.{name}", item) for name, item in inner.items()]
        elif isinstance(inner, list):
            waiting += [(path, item) for item in inner]
        elif isinstance(inner, int | float) and not isinstance(inner, bool):
            name = path.rpartition(".")[2]
            least, most = _BOUNDS.get(name, _LENGTHS if name.endswith("kimg") else _OTHER_BOUNDS)
            if not least <= inner <= most or inner == math.inf:  # which is how 1e999 is read
                bounds = [f"at least {least:,}"] if math.isfinite(least) else []
                bounds += [f"at most {most:,}"] if math.isfinite(most) else []
                raise UserError(f"{path:.200}: expected {' and '.join(bounds) or 'a number'}, found {inner!r:.80}")


def _component(key: str, value: object, field: dataclasses.Field) -> Component:
    name_key = field.metadata["name_key"]
    if not isinstance(value, dict) or not isinstance(value.get(name_key), str):
        raise UserError(f"{key}: expected a dictionary with {name_key!r}, found {value!r:.80}")
    arguments = {name: item for name, item in value.items() if name != name_key}
    try:
        field.metadata["registry"].get(value[name_key])
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    return Component(value[name_key], arguments)


def read(run_dir: str | os.PathLike) -> RunConfig:
    """The configuration in a run directory. Nothing that the file names is imported unless it is registered.

    Raises:
        UserError: the file is missing, damaged, or not a configuration; the message names it.
    """
    path = os.path.join(run_dir, FILE_NAME)
    try:
        values = strict_json.loads(read_file(path, MAX_BYTES))
        if not isinstance(values, dict):
            raise UserError(f"expected a dictionary, found a {type(values).__name__}")
        if _depth(values) > MAX_DEPTH:
            raise UserError(f"dictionaries are nested more than {MAX_DEPTH} deep")
        for name in ("provenance", "run_dir"):
            values.pop(name, None)
        return from_dict(values)
    except FileError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{path}: {reason}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}; it is not the configuration of a run") from None


def _depth(value: object) -> int:
    """How deep dictionaries and lists are nested."""
    deepest, level = 0, [value]
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict | list):
                inner += item.values() if isinstance(item, dict) else item
        level = inner
        deepest += 1
    return deepest
