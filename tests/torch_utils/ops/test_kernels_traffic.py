"""Memory traffic of the kernels; `benchmarks/traffic.py` has all layers, here are those of up to 132 px a side."""
import pytest

from benchmarks import traffic

MAX_RATIO = 1.15


@pytest.fixture(scope="module", params=[False, True], ids=["planes", "channels_last"])
def layers(request: pytest.FixtureRequest) -> list[traffic.Layer]:
    return traffic.record(channels_last=request.param)


def test_specialised_kernels_move_little_more_than_the_least(host_library, layers) -> None:
    small = [layer for layer in layers if layer.op == "upfirdn2d" and max(layer.shape[2:]) <= 132]
    ratios = {}
    for layer in small:
        ratios.setdefault(layer[:4] + layer.arguments[1:3], traffic.measure(host_library, layer))
    assert len(ratios) >= 5
    assert {result.kernel.split("_")[2] for result in ratios.values()} == {"u1d1", "u1d2", "u2d1"}
    for layer, result in ratios.items():
        assert result.kernel.startswith("fir4"), layer
        assert 0.99 <= result.ratio <= MAX_RATIO, (layer, result)


def test_bias_act_reads_and_writes_once(host_library, layers) -> None:
    for layer in layers:
        if layer.op != "upfirdn2d" and max(layer.shape[2:], default=0) <= 132:
            assert 0.99 <= traffic.measure(host_library, layer).ratio <= MAX_RATIO, layer
