"""What the demo shows at its end: one table, one picture."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

NAMES = {"teacher": "teacher", "sliced": "sliced", "refitted": "sliced, refitted", "distilled": "student, distilled"}
SCALE = 3  # of the images in the picture
LABEL_WIDTH = 190
FONT_SIZE = 15


def rows(costs: Sequence[Mapping[str, Any]], scores: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """One dictionary per network. Slicing sets the student's cost; training does not change it.

    Args:
        costs: as prune_init.py writes them, those named "teacher G" and "student G" among them.
        scores: network → fd, precision, recall, agreement_psnr, agreement_ssim.
    """
    by_name = {cost["name"]: cost for cost in costs}
    table_rows = []
    for who, score in scores.items():
        cost = by_name["teacher G" if who == "teacher" else "student G"]
        picked = {key: cost[key] for key in ("params", "macs_in", "macs_out", "file_bytes", "ms_batch1", "ms_batch8")}
        table_rows.append({"network": who, **picked, **score})
    return table_rows


def table(table_rows: Sequence[Mapping[str, Any]], num_gen: int, kimg: int) -> str:
    """The rows as a Markdown table with a note on how they came about."""
    head = ["generator", "params", "MACs", "file", "ms/image", "fd@clothing32 ↓", "precision ↑", "recall ↑",
            "PSNR ↑", "SSIM ↑"]
    cells = [
        [
            NAMES[row["network"]],
            f"{row['params']:,}",
            f"{row['macs_in'] / 1e6:.2f} M",
            f"{row['file_bytes'] / 2**20:.2f} MiB",
            f"{row['ms_batch1']:.2f} / {row['ms_batch8']:.2f}",
            f"{row['fd']:.2f}",
            f"{row['precision']:.3f}",
            f"{row['recall']:.3f}",
            f"{row['agreement_psnr']:.1f}" if row["network"] != "teacher" else "",
            f"{row['agreement_ssim']:.3f}" if row["network"] != "teacher" else "",
        ]
        for row in table_rows
    ]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(line, widths)] for line in [head, *cells]]
    lines.insert(1, ["-" * width for width in widths])
    note = (
        "MACs per image, an up-convolution counted at its input resolution. File: the generator alone. ms/image: one\n"
        "at a time / in batches of eight, on this machine. Scores, which are not comparable with published FIDs:\n"
        f"{num_gen:,} generated against 2,000 real images that no network has seen, with the detector clothing32.\n"
        "PSNR in dB and SSIM: agreement with the teacher's images of the same latents.\n"
        f"Distilled: on {kimg},000 images that the teacher made, compared by its discriminator's features.\n"
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + note


def draw(folders: Mapping[str, Path], params: Mapping[str, int], dest: Path) -> None:
    """Draws the images of every network in a row of its own, the same latents below each other."""
    images = {who: [PIL.Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]
              for who, folder in folders.items()}
    side = next(iter(images.values()))[0].width * SCALE
    size = (LABEL_WIDTH + side * max(map(len, images.values())), side * len(images))
    picture = PIL.Image.new("RGB", size, "white")
    pen = PIL.ImageDraw.Draw(picture)
    font = PIL.ImageFont.load_default(FONT_SIZE)
    for number, (who, row) in enumerate(images.items()):
        label = f"{NAMES[who]}\n{params[who]:,} params"
        pen.multiline_text((10, side * number + side // 2), label, fill="black", font=font, anchor="lm", spacing=6)
        for column, image in enumerate(row):
            tile = image.resize((side, side), PIL.Image.Resampling.NEAREST)
            picture.paste(tile, (LABEL_WIDTH + side * column, side * number))
    picture.save(dest)
