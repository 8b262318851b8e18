"""Makes the data set emoji64: about 10,900 emoji of three vendors at 64 px, with the vendors as labels.

    python -m benchmarks.emoji64 --dest=emoji64.zip
    python -m benchmarks.emoji64 --dest=emoji64.zip --archives=FOLDER

Writes emoji64.zip to train on, emoji64-test.zip to score against, and emoji64.attribution.md, which has to go with
them. The split is by picture: skin tones, genders and the three vendors' versions of one never stand on both sides.
"""
import json
import tempfile
from pathlib import Path

import click

from benchmarks.emoji64 import archives as packages
from benchmarks.emoji64 import collection
from dataset_tool import Colour
from dnnlib.cli import Command
from dnnlib.files import open_atomic
from training.data.writer import check_dest


@click.command(cls=Command)
@click.option("--dest", help="Data set to write.", required=True, metavar="FILE.zip")
@click.option("--archives", help="Folder of the three archives.", show_default="npm fetches them", metavar="DIR")
@click.option("--background", help="Colour that transparency is composed on.", type=Colour(), default="white",
              show_default=True, metavar="COLOUR")
@click.option("--write-list", help="Write the list of images that belongs to the code instead of comparing with it.",
              is_flag=True, hidden=True)
def main(dest: str, archives: str | None, background: tuple[int, int, int], write_list: bool) -> None:
    """Make the data set emoji64, its test set and the attribution."""
    check_dest(dest)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(archives or temporary)
        if archives is None:
            packages.fetch(packages.ARCHIVES, folder)
        packages.check(packages.ARCHIVES, folder)
        items = collection.collect(packages.ARCHIVES, folder, background)
    if write_list:
        with open_atomic(collection.LIST, "w") as file:
            file.write(collection.listing(items, packages.ARCHIVES))
    else:
        collection.check_listed(items, packages.ARCHIVES, collection.LIST.read_text())
    attribution = Path(__file__).with_name("ATTRIBUTION.md").read_text()
    collection.write(items, packages.ARCHIVES, Path(dest), background, attribution)
    click.echo(json.dumps({"dest": dest, **collection.counts(items, packages.ARCHIVES)}))


if __name__ == "__main__":
    main()
