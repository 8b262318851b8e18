"""The demo's table and picture."""
from pathlib import Path

import numpy as np
import PIL.Image

from demo import report

COSTS = [
    {"name": name, "params": params, "macs_in": 10 * params, "macs_out": 20 * params, "file_bytes": 4 * params,
     "ms_batch1": 2.0, "ms_batch8": 0.5}
    for name, params in (("teacher G", 1_000_000), ("student G", 300_000), ("teacher D", 5))
]
SCORES = {who: {"fd": fd, "precision": 0.5, "recall": 0.25, "agreement_psnr": 21.04, "agreement_ssim": 0.75}
          for who, fd in (("teacher", 3.0), ("sliced", 17.0), ("distilled", 4.5))}


def test_rows_take_costs_from_the_right_network() -> None:
    result = report.rows(COSTS, SCORES)
    assert [row["network"] for row in result] == ["teacher", "sliced", "distilled"]
    assert [row["params"] for row in result] == [1_000_000, 300_000, 300_000]
    assert [row["fd"] for row in result] == [3.0, 17.0, 4.5]


def test_table() -> None:
    lines = report.table(report.rows(COSTS, SCORES), num_gen=2000, kimg=40).splitlines()
    assert len({len(line) for line in lines[:5]}) == 1
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells == ["student, distilled", "300,000", "3.00 M", "1.14 MiB", "2.00 / 0.50", "4.50", "0.500", "0.250",
                     "21.0", "0.750"]
    assert "2,000 generated against 2,000 real images" in " ".join(lines)
    assert "40,000 images" in lines[-1]
    assert lines[2].rstrip(" |").endswith("0.250")  # a teacher agrees with itself


def test_picture_has_a_row_per_network(tmp_path: Path) -> None:
    folders = {}
    for who, grey in (("teacher", 10), ("sliced", 100), ("distilled", 200)):
        folders[who] = tmp_path / who
        folders[who].mkdir()
        for seed in range(4):
            PIL.Image.fromarray(np.full([32, 32], grey + seed, dtype=np.uint8)).save(folders[who] / f"{seed}.png")
    report.draw(folders, dict.fromkeys(folders, 12345), tmp_path / "images.png")
    picture = np.asarray(PIL.Image.open(tmp_path / "images.png"))
    side = 32 * report.SCALE
    assert picture.shape == (3 * side, report.LABEL_WIDTH + 4 * side, 3)
    centres = picture[side // 2 :: side, report.LABEL_WIDTH + side // 2 :: side, 0]
    assert centres.tolist() == [[10, 11, 12, 13], [100, 101, 102, 103], [200, 201, 202, 203]]
    labels = picture[:side, : report.LABEL_WIDTH]
    assert labels.min() < 128
    assert labels.max() == 255
