"""What is measured of a file goes by the network's own protocol."""
import hashlib
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import export
from dnnlib.errors import UserError
from metrics import torchscript
from metrics.options import Reference
from tests import tiny
from training.export import onnx_file, verification

for name in ("onnxscript", "onnxruntime"):
    pytest.importorskip(name, reason="the extra [export] is not installed")


def test_a_file_in_the_place_of_its_generator(tmp_path: Path) -> None:
    path = tiny.write_teacher(tmp_path / "net.pkl", resolution=8, c_dim=2)
    data = tiny.write_data(tmp_path / "data", num=12, side=8, num_classes=2)
    with open(tmp_path / "detector.pt", "wb") as f:
        torchscript.save(torchscript.script(_Detector()), f)
    result = CliRunner().invoke(export.main, [
        f"--network={path}", "--format=onnx", "--weights=int8", f"--dest={tmp_path}/net.onnx", f"--verify-data={data}",
        f"--verify-teacher={path}", f"--detector={tmp_path}/detector.pt", "--num-gen=40"])
    assert result.exit_code == 0, result.output
    about = onnx_file.read_metadata(tmp_path / "net.onnx")
    fd, agreement = json.loads(about["fd"]), json.loads(about["agreement"])
    assert fd["metric"] == "fd@detector"
    assert fd["file"] == pytest.approx(fd["network"], rel=0.2)
    assert fd["file"] != fd["network"]
    assert fd["protocol"]["num_gen"] == 40
    own, of_file = agreement["network"], agreement["file"]  # the network is its own teacher
    assert list(own) == list(of_file) == ["psnr", "distance@D"]  # 8 px are too few for a structural similarity
    assert own["psnr"] > 90
    assert own["distance@D"] < 1e-6 < of_file["distance@D"] < 0.1
    assert 30 < of_file["psnr"] < 70
    assert agreement["protocol"]["teacher"] == {"name": "net.pkl",
                                                "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    assert f"agreement with the teacher, psnr: network {own['psnr']:.4g}, file {of_file['psnr']:.4g}" in result.output
    assert f"fd@detector: network {fd['network']:.4g}, file {fd['file']:.4g}" in result.output


class _Detector(torch.nn.Module):
    """Means of quarters of the image."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(img.float() / 255, 2).flatten(1)


def test_a_teacher_of_another_size_is_refused() -> None:
    G, teacher = tiny.tiny_generator(resolution=4), tiny.tiny_generator(resolution=8)
    with pytest.raises(UserError, match=r"verify_teacher: expected a teacher with z_dim, .* \(16, 0, 4, 3\), found"):
        verification.agreement(G, object(), Reference("t", "", teacher))  # type: ignore[arg-type]


@pytest.mark.parametrize(("args", "message"), [
    (["--verify-teacher=x.pkl", "--input=w"], "Error: --verify-teacher: can only be verified with --input=z, "
                                              "--noise=const and --pixels=float, and with all "
                                              "classes"),
    (["--num-gen=5"], "Error: --num-gen: goes with --verify-data; leave it out"),
    (["--verify-data=x.zip"], "Error: --verify-data: x.zip: no such folder or zip"),
    (["--detector=x.pt"], "Error: --detector: goes with --verify-data; leave it out"),
])
def test_options_that_do_not_fit(args: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(export.main, ["--network=n.pkl", "--format=onnx", f"--dest={tmp_path}/n.onnx", *args])
    assert (result.exit_code, result.output) == (1, message + "\n")


