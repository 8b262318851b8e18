"""Calculate quality metrics of one network pickle, of every one in a folder, or of a folder of images."""
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import (
    CommaList,
    Command,
    FiniteFloat,
    device_option,
    trust_detector_option,
    trust_pickle_option,
)
from dnnlib.errors import UserError
from dnnlib.util import is_url, open_url

if TYPE_CHECKING:
    import torch

    from torch_utils.network_types import Generator

_DATASET_CLASS = "training.dataset.ImageFolderDataset"


@dataclass(frozen=True)
class Job:
    """The options of all processes."""

    networks: list[str] | None
    metrics: list[str]
    data: str | None
    mirror: bool | None
    device: str
    trust_pickle: bool
    verbose: bool
    teacher: str | None
    options: dict[str, Any]  # passed on to every metric
    images: str | None = None
    trust_detector: bool = False


class MetricList(CommaList):
    """Option type: a list of metrics with commas between them."""

    def convert(self, value: str | list[str], param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Reads the option's text."""
        from metrics.metric_main import is_valid_metric, list_valid_metrics

        names = super().convert(value, param, ctx)
        unknown = [name for name in names if not is_valid_metric(name)]
        if unknown:
            self.fail(f"no metric is called {unknown[0]!r}; valid ones: {', '.join(list_valid_metrics())}", param, ctx)
        return names


class NetworkSource(click.ParamType):
    """Option type: a URL, a file, or a folder, as the list of pickles that it stands for."""

    name = "network"

    def convert(self, value: str | list[str], param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Reads the option's text."""
        if isinstance(value, list):
            return value
        if os.path.isdir(value):
            files = sorted(os.listdir(value))
            pickles = [name for name in files if name.endswith(".pkl")]
            snapshots = [name for name in pickles if name.startswith("network-snapshot-")]
            if pickles:
                return [os.path.join(value, name) for name in snapshots or pickles]
            if not any(name.endswith(".pth") for name in files):  # a folder of those is one network
                self.fail(f"the folder {value} holds no network", param, ctx)
            return [value]
        if not os.path.isfile(value) and not is_url(value):
            self.fail(f"expected a file, a folder or a URL, found {value!r}", param, ctx)
        return [value]


def load_network(path: str, trust_pickle: bool) -> tuple[Any, dict[str, Any]]:
    """The generator G_ema of a pickle, and the arguments of the data set that it was trained on."""
    from training.checkpoints.pickles import open_networks

    data = open_networks(path, trust_pickle=trust_pickle)
    return data["G_ema"], dict(data.get("training_set_kwargs") or {})


def load_reference(path: str, trust_pickle: bool) -> Any:
    """The `metrics.agreement.Reference` in a network pickle."""
    import hashlib

    from metrics.agreement import Reference
    from training.checkpoints.parts import optional
    from training.checkpoints.pickles import open_networks

    nets = open_networks(path, trust_pickle=trust_pickle)
    digest = ""
    if not os.path.isdir(path):
        with open_url(path) as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    return Reference(os.path.basename(path), digest, nets["G_ema"], optional(nets, "D"))


def dataset_options(job: Job, G: "Generator", trained_on: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the data set with the real images; empty if nothing says where they are.

    A pickle may name any class for its data set. Only ours is made from it, and only with the options known here:
    the file's author must not choose what is run.

    Raises:
        UserError: the pickle names another class.
    """
    if job.data is not None:
        options: dict[str, Any] = {"class_name": _DATASET_CLASS, "path": job.data}
    elif trained_on.get("path") is None:
        return {}
    else:
        class_name = trained_on.get("class_name", _DATASET_CLASS)
        if class_name != _DATASET_CLASS:
            raise UserError(f"its data set is of the unknown class {class_name}; pass --data", "networks")
        options = {key: trained_on[key] for key in ("path", "xflip", "max_size", "random_seed") if key in trained_on}
        options["class_name"] = class_name
    options |= {"resolution": G.img_resolution, "use_labels": G.c_dim != 0}
    return options if job.mirror is None else options | {"xflip": job.mirror}


def run_dir_of(path: str) -> str | None:
    """The folder of a local pickle if a training run made it."""
    folder = os.path.dirname(path) or "."
    is_run = not is_url(path) and os.path.isfile(os.path.join(folder, "training_options.json"))
    return folder if is_run else None


def _shared_features(job: Job) -> Any:
    """Where the metrics of one network keep what they have in common; None for a single one."""
    from metrics.shared_features import SharedFeatures

    return SharedFeatures() if len(job.metrics) > 1 else None


def calc_network(job: Job, path: str, device: "torch.device") -> None:
    """Runs all metrics on one pickle and reports them.

    Raises:
        UserError: a metric cannot be computed, or its real images are missing.
    """
    from metrics.metric_main import calc_metric, report_metric
    from torch_utils import distributed

    G, trained_on = load_network(path, job.trust_pickle)
    dataset_kwargs = dataset_options(job, G, trained_on)
    if job.verbose and distributed.is_main():
        click.echo(f"network: {path}", err=True)
        if set(job.metrics) != {"agreement"}:
            click.echo(f"data set: {dataset_kwargs}", err=True)
    options = {**job.options, "shared": _shared_features(job)}
    if job.teacher is not None and "agreement" in job.metrics:
        options["reference"] = load_reference(job.teacher, job.trust_pickle)
    for name in job.metrics:
        try:
            result = calc_metric(
                name, G=G, dataset_kwargs=dataset_kwargs, device=device, verbose=job.verbose, **options
            )
        except UserError as error:
            source = dataset_kwargs.get("path")
            needs_data = name != "agreement"
            if needs_data and job.data is None and source is not None and not os.path.exists(source):
                raise UserError(f"the network's training data {source} is not here; pass --data") from error
            raise
        if distributed.is_main():
            report_metric(result, run_dir=run_dir_of(path), snapshot_pkl=path)


def calc_images(job: Job, device: "torch.device") -> None:
    """Runs all metrics on a data set's images in place of a network's, and reports them."""
    from metrics.metric_main import calc_metric, report_metric
    from torch_utils import distributed

    real, images = ({"class_name": _DATASET_CLASS, "path": path} for path in (job.data, job.images))
    shared = _shared_features(job)
    for name in job.metrics:
        result = calc_metric(
            name,
            dataset_kwargs=real | {"xflip": bool(job.mirror)},
            images_kwargs=images,
            device=device,
            verbose=job.verbose,
            shared=shared,
            **job.options,
        )
        if distributed.is_main():
            report_metric(result)


def run(job: Job) -> None:
    """The work of one process."""
    from metrics import detector
    from torch_utils import distributed
    from torch_utils.devices import resolve_device, set_numerical_modes, tune_allocator

    tune_allocator()
    device = resolve_device(job.device)
    set_numerical_modes(cudnn_benchmark=True, allow_tf32=False)  # full precision, so that scores compare
    distributed.init(device.type)
    try:
        with detector.trust(detector.Trust.ALL if job.trust_detector else detector.Trust.PINNED):
            for path in job.networks or ():
                calc_network(job, path, device)
            if job.images is not None:
                calc_images(job, device)
    finally:
        distributed.shutdown()


_INT: dict[str, Any] = {"type": click.IntRange(min=1), "metavar": "INT"}
_BOOL: dict[str, Any] = {"type": bool, "metavar": "BOOL"}


@click.command(cls=Command, fields={"detector": "detectors"})
@click.option("--network", "networks", help="Network pickle, or a folder of them: path or URL.",
              metavar="[PATH|URL]", type=NetworkSource())
@click.option("--metrics", help="Metrics, comma-separated, or none.", default="fid50k_full", show_default=True,
              metavar="LIST", type=MetricList())
@click.option("--data", help="Real images: folder or zip.", show_default="those of the training", metavar="PATH")
@click.option("--images", help="Images to measure in place of a network's: folder or zip; with --data.", metavar="PATH")
@click.option("--trunc", "psi", help="Truncation of the generated images; such scores are not comparable.",
              type=FiniteFloat(), metavar="FLOAT")
@click.option("--mirror", help="Add mirrored copies of the real images.", show_default="as in training", **_BOOL)
@click.option("--gpus", help="Number of processes.", default=1, show_default=True, **_INT)
@click.option("--verbose", help="Show progress and settings.", default=True, show_default=True, **_BOOL)
@click.option("--num-gen", help="Generated images; scores with another number than the metric's own are not "
              "comparable.", **_INT)
@click.option("--num-real", help="Real images at most, likewise.", **_INT)
@click.option("--detector", "detectors", help="TorchScript feature detector instead of the published one: path or URL, "
              "optionally #sha256=HEX. A file with the name of a published one replaces only that. Repeatable.",
              metavar="[PATH|URL]", multiple=True)
@click.option("--teacher", help="Network pickle that --metrics=agreement compares with: path or URL.",
              metavar="[PATH|URL]")
@click.option("--seed", help="Seed of the latents.", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
              metavar="INT")
@click.option("--batch-gen", help="Images per generator call.", show_default="4 from 256 pixels on, else 32", **_INT)
@click.option("--cache/--no-cache", help="Use and write the cache of the real images' statistics.", default=True,
              show_default=True)
@device_option
@trust_pickle_option
@trust_detector_option
def main(
    networks: list[str] | None,
    metrics: list[str],
    data: str | None,
    images: str | None,
    psi: float | None,
    mirror: bool | None,
    gpus: int,
    verbose: bool,
    device: str,
    trust_pickle: bool,
    trust_detector: bool,
    cache: bool,
    teacher: str | None,
    **options: Any,
) -> None:
    """Calculate quality metrics of a network pickle, or of every one in a folder.

    Results go to stdout, one JSON line each, and to metric-NAME.jsonl beside a pickle that is still in the folder of
    its training run. Scores with another detector than the published one carry the detector's name.

    \b
    Examples:
      # A pickle, compared with the images that it was trained on.
      python calc_metrics.py --metrics=fid50k_full,pr50k3_full --network=runs/00000-ffhq/network-snapshot-025000.pkl
    \b
      # A quick look at every snapshot of a run, without a download.
      python calc_metrics.py --network=runs/00000-fmnist --num-gen=2000 --detector=metrics/detectors/clothing32.pt
    \b
      # How far the images of a folder are from those of a zip.
      python calc_metrics.py --images=generated --data=real.zip --metrics=fid50k_full,kid50k_full
    \b
    What can be measured:
      fid50k_full, fid50k   Fréchet inception distance
      kid50k_full, kid50k   kernel inception distance, which has no bias for few images
      pr50k3_full, pr50k3   precision (quality) and recall (variety)
      is50k                 inception score; needs no real images
      ppl2_wend             perceptual path length in W, at the start of paths
      agreement             PSNR, SSIM, perceptual distance to the images of --teacher, of the same latents
    Names with _full use all real images, those without it at most 50,000.
    \b
    Perceptual path lengths of the central part of the image, at the start of paths or along all of them:
      in W: ppl_wend, ppl_wfull; in Z: ppl_zend, ppl_zfull
    """
    from torch_utils import distributed

    if (networks is None) == (images is None):
        raise click.UsageError("expected either --network or --images with --data")
    if images is not None and data is None:
        raise click.UsageError("--images: pass the images to compare with as --data")
    if teacher is not None and "agreement" not in metrics:
        raise click.UsageError("--teacher can only be given together with --metrics=agreement")
    if teacher is None and "agreement" in metrics:
        raise click.UsageError("--metrics=agreement needs --teacher, the network pickle to compare with")
    if data is not None and set(metrics) == {"agreement"}:
        raise click.UsageError("--data: --metrics=agreement reads no real images; leave it out")
    if psi is not None:
        options["G_kwargs"] = {"truncation_psi": psi}
    options["cache"] = cache
    job = Job(networks, metrics, data, mirror, device, trust_pickle, verbose, teacher, options, images,
              trust_detector)
    distributed.launch(run, [job], gpus)


if __name__ == "__main__":
    main()
