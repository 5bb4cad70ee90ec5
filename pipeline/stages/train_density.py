"""Stage ``train-density``: train the density network on images and density maps."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from dmnet.core.artifact import Item, Product
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.files import digest
from dmnet.core.spread import place
from dmnet.pipeline.chain import require
from dmnet.pipeline.context import Context, Plan, Upstream
from dmnet.pipeline.learning.pairs import Pairs
from dmnet.pipeline.learning.settings import DensityTraining as Config
from dmnet.pipeline.training import checkpoint_name, named_start, remove_checkpoints, starting_file

VERSION = 2


def plan(context: Context) -> Plan:
    """One item: the weights."""
    config = named_start(context.config("train-density", Config), "density")
    pairs, judged, made = training_sets(context, config)
    files = pairs.files() | {f"judged {name}": path for name, path in judged.files().items()}
    files |= starting_file("train-density", config.init)
    item = Item("weights", files)
    root = context.folder("train-density")
    checkpoint = root / checkpoint_name(config, files)
    board = root / "tensorboard" if config.tensorboard else None
    device = context.device
    return Plan(
        config,
        [item],
        partial(learn, config, pairs, judged, checkpoint, board, device),
        finish=remove_checkpoints,
        made_from=made,
    )


def training_sets(context: Context, config: Config) -> tuple[Pairs, Pairs, tuple[Upstream, ...]]:
    """What is trained on, what is judged on, and the artifacts of their maps.

    The two sets share no scene if a part is held out.

    Raises:
        ConfigError: holding out leaves nothing to train on.
        MissingInputError: see `find_pairs`.
    """
    pairs, made = Pairs({}, {}), []
    for split in config.train_on:
        found, upstream = find_pairs(context, split, truths=config.hold_out > 0)
        pairs |= found
        made.append(upstream)
    if config.hold_out:
        kept_out = held_out(pairs.images, config.hold_out)
        if len(kept_out) == len(pairs.images):
            raise ConfigError(
                f"train_density.hold_out {config.hold_out} leaves nothing to train on: whole "
                f"scenes are held out, and the {len(kept_out)} images are of too few (a scene is "
                "what a file name has before its first '_'); lower it, or set it to 0 and give "
                "validate_on"
            )
        return pairs.part(pairs.images.keys() - kept_out), pairs.part(kept_out), tuple(made)
    if config.validate_on is None:
        return pairs, Pairs({}, {}), tuple(made)
    judged, upstream = find_pairs(context, config.validate_on, truths=True)
    return pairs, judged, (*made, upstream)


def held_out(ids: Iterable[str], share: float) -> set[str]:
    """Images of whole scenes that make up at least ``share`` of all; the same in every run.

    Scenes come in the order of their names' digests: in no order that means anything.
    """
    scenes: dict[str, set[str]] = {}
    for name in ids:
        scenes.setdefault(name.rpartition("/")[2].partition("_")[0], set()).add(name)
    wanted = share * sum(map(len, scenes.values()))
    found: set[str] = set()
    for scene in sorted(scenes, key=lambda scene: digest([scene])):
        if len(found) >= wanted:
            break
        found |= scenes[scene]
    return found


def find_pairs(context: Context, split: str, *, truths: bool) -> tuple[Pairs, Upstream]:
    """Images of a split that have a map, with ``truths`` their annotations; the maps' artifact.

    Raises:
        MissingInputError: the maps have not been made, or none belongs to an image.
        StaleInputError: the maps were made from other annotations or images.
    """
    made = require(context, "density", split,
        instead="or judge on nothing: --train-density.validate-on null"
        if split != "train" else "")  # fmt: skip
    folder = made.folder
    dataset = context.dataset_of(split)
    images, maps = {}, {}
    for entry in dataset.with_image:
        path = place(folder, f"{entry.image_id}.h5")
        if entry.image is None or entry.image_id in made.aside:
            continue
        if path.exists():
            name = f"{dataset.split}/{entry.image_id}"
            images[name], maps[name] = entry.image, path
    if not images:
        raise MissingInputError(
            f"{dataset.root}: no image of split '{split}' has a density map in {folder}; "
            "training needs image files and annotations."
        )
    known = {f"{dataset.split}/{e.image_id}": (dataset, e) for e in dataset.with_annotation}
    return Pairs(images, maps, {n: known[n] for n in images if n in known} if truths else {}), made


def learn(*given: Any) -> Product:
    """See `dmnet.pipeline.learning.density.learn`; torch is imported once it is wanted."""
    from dmnet.pipeline.learning import density

    return density.learn(*given)
