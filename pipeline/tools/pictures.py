"""``dmnet pictures``: image, density, windows and crops of any images, as a contact sheet."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from dmnet.core.dataset import Dataset, open_dataset
from dmnet.core.errors import DmnetError, MissingInputError
from dmnet.core.files import write_atomic
from dmnet.core.formats import density_h5
from dmnet.core.images import encode_jpeg, read_image
from dmnet.core.listing import Entry
from dmnet.core.presets import from_pairs
from dmnet.core.records import Image
from dmnet.cropping.pictures import contact_sheet, crop_picture
from dmnet.cropping.slicers import CropConfig
from dmnet.pipeline.outcome import add_data, add_max_bad, exit_code
from dmnet.pipeline.stages.density import map_of

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("ids", nargs="*", metavar="IMAGE", help="image ids; without any, the first four")
    add_data(add)
    add("--maps", type=Path, metavar="DIR", help="density maps; without it, ground truth")
    add("--setting", nargs="*", default=[], metavar="KEY=VALUE", help="settings of 'crop'")
    add("--out", type=Path, default=Path("pictures.jpg"), metavar="FILE", help="file to write")
    add_max_bad(add)


def run(args: argparse.Namespace) -> int:
    """Write one sheet, a row per image."""
    dataset = open_dataset(args.data, args.split, args.sizes)
    settings = from_pairs(CropConfig, "crop", args.setting)
    chosen = list(_chosen(dataset, args.ids))
    maps = density_h5.maps_in(args.maps) if args.maps else None
    rows: list[Image] = []
    bad: dict[str, str] = {}
    for entry in tqdm(chosen, desc="pictures", disable=None):
        try:
            rows.append(_picture(dataset, entry, settings, maps))
        except DmnetError as error:
            bad[entry.image_id] = str(error)
    if not rows:
        raise MissingInputError(f"no image can be drawn: {'; '.join(bad.values())}")
    write_atomic(args.out, [encode_jpeg(contact_sheet(rows), 88)])
    _log.info("written: %s", args.out)
    return exit_code(bad, args.max_bad)


def _chosen(dataset: Dataset, ids: list[str]) -> Iterator[Entry]:
    known = {entry.image_id: entry for entry in dataset.with_image}
    for name in ids or list(known)[:4]:
        if name not in known:
            raise MissingInputError(
                f"{dataset.root}: no image '{name}'; there are {len(known)}, such as "
                f"{', '.join(list(known)[:3])}."
            )
        yield known[name]


def _picture(
    dataset: Dataset, entry: Entry, settings: CropConfig, maps: Mapping[str, Path] | None
) -> Image:
    assert entry.image is not None
    image = read_image(entry.image)
    truth = dataset.annotations(entry)[0] if entry.annotated else None
    density = map_of(maps, entry.image_id, dataset.size(entry), truth)
    return crop_picture(image, density, settings, truth, entry.image_id)
