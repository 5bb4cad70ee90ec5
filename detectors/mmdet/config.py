"""Fit any MMDetection 3 config to our data, and keep what inference needs of it as plain JSON.

A config file in Python is a program: reading it runs it. What is stored inside a weights file is
therefore JSON, and `restore` accepts only registered class names in it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmnet.core.errors import CheckpointError, ConfigError, InputError
from dmnet.core.plain_yaml import parse_yaml

_SIZED = {"Resize": "scale", "RandomResize": "scale", "RandomCrop": "crop_size", "Pad": "size"}
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def kind(node: Any) -> str:
    """Bare class name of a config node (``mmdet.RTMDet``, a class, and ``RTMDet`` are the same)."""
    value = node.get("type", "")
    name: str = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    return name.rsplit(".", 1)[-1]


def nodes(tree: Any) -> Iterator[Any]:
    """Every dictionary of a config, outer ones first."""
    if isinstance(tree, Mapping):
        yield tree
        for value in list(tree.values()):
            yield from nodes(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from nodes(value)


def read(path: Path, options: Sequence[str]) -> Any:
    """Read a config file and apply ``key=value`` options.

    Raises:
        InputError: no such file, or the config does not run.
        ConfigError: an option is not of that form or does not exist.
    """
    from mmengine.config import Config

    if not path.is_file():
        raise InputError(path, "no such MMDetection config")
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program: anything may come
        raise InputError(path, f"this MMDetection config does not load: {error}") from error
    for key in ("model", "train_dataloader"):
        if key not in cfg:
            raise InputError(path, f"not an MMDetection 3 config: it has no '{key}'")
    apply_options(cfg, options, str(path))
    return cfg


def apply_options(cfg: Any, options: Sequence[str], name: str) -> None:
    """Change a config by ``key=value`` each; values are read as Python, else as YAML.

    Raises:
        ConfigError: not of that form, or no such place in the config.
    """
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise ConfigError(f"mmdet option '{option}': write key=value")
        try:
            cfg.merge_from_dict({key.strip(): _value(text)}, allow_list_keys=True)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ConfigError(f"mmdet option '{option}': does not fit {name}: {error}") from error


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return parse_yaml(text)


def leaf(dataset: Any) -> Any:
    """The innermost dataset of wrappers such as ``RepeatDataset``; of several, the first."""
    if "dataset" in dataset:
        return leaf(dataset["dataset"])
    if "datasets" in dataset:
        dataset["datasets"] = dataset["datasets"][:1]
        return leaf(dataset["datasets"][0])
    return dataset


def set_data(loader: Any, coco: Path, images: Path, meta: Mapping[str, Any], workers: int) -> None:
    """Point a data loader at a COCO file, and guard it when it has worker processes."""
    inner = leaf(loader["dataset"])
    for key in ("img_subdir", "ann_subdir", "indices", "data_cache"):
        inner.pop(key, None)
    inner.update(
        type="CocoDataset",
        data_root="",
        ann_file=str(coco),
        data_prefix={"img": str(images)},
        metainfo=dict(meta),
    )
    if not inner.get("test_mode", False):
        inner["filter_cfg"] = {"filter_empty_gt": False, "min_size": 1}  # crops without objects
    loader["num_workers"] = workers
    if workers:
        loader["dataset"] = {"type": "DmnetGuarded", "dataset": loader["dataset"]}
    else:
        loader["persistent_workers"] = False
        loader.pop("prefetch_factor", None)


def set_classes(cfg: Any, count: int) -> None:
    """Set ``num_classes`` wherever the model has it."""
    for node in nodes(cfg["model"]):
        if "num_classes" in node:
            node["num_classes"] = count


def set_size(cfg: Any, size: tuple[int, int]) -> None:
    """Replace the size, ``(width, height)``, of every resize, crop and pad step."""
    for part in (cfg.get(name) for name in (*_LOADERS, "custom_hooks", "pipeline")):
        for node in nodes(part):
            key = _SIZED.get(kind(node))
            if key is not None and key in node:
                node[key] = tuple(size)


def grey_ignored(loader: Any) -> None:
    """Put the greying of ignored regions after every loading of annotations."""
    for node in nodes(loader):
        for pipeline in ("pipeline", "switch_pipeline"):
            steps = node.get(pipeline)
            if isinstance(steps, list):
                node[pipeline] = [part for step in steps for part in _with_grey(step)]


def _with_grey(step: Any) -> list[Any]:
    return [step, {"type": "DmnetGreyIgnored"}] if kind(step) == "LoadAnnotations" else [step]


def set_epochs(cfg: Any, epochs: int, steps: int) -> None:
    """Set the number of epochs and scale everything that counts them; warm-up is a tenth at most.

    Args:
        cfg: the config.
        epochs: new number of epochs.
        steps: iterations of an epoch.

    Raises:
        ConfigError: the config counts iterations, not epochs.
    """
    train = cfg["train_cfg"]
    if "max_epochs" not in train:
        raise ConfigError(
            "this MMDetection config counts iterations, not epochs; leave the epochs at 0 and set "
            "train_cfg.max_iters by an option"
        )
    ratio = epochs / train["max_epochs"]
    train["max_epochs"] = epochs
    train.pop("dynamic_intervals", None)
    train["val_interval"] = max(1, round(train.get("val_interval", 1) * ratio))
    schedulers = cfg.get("param_scheduler") or []
    for part in schedulers if isinstance(schedulers, list) else [schedulers]:
        if part.get("by_epoch", True):
            for key in ("begin", "end", "T_max"):
                if key in part:
                    part[key] = round(part[key] * ratio)
            if "T_max" in part:
                part["T_max"] = max(1, part["T_max"])
            if "milestones" in part:
                part["milestones"] = [max(1, round(m * ratio)) for m in part["milestones"]]
        elif "end" in part:
            part["end"] = max(1, min(part["end"], epochs * steps // 10))
    for hook in cfg.get("custom_hooks") or []:
        for key in ("switch_epoch", "num_last_epochs"):
            if key in hook:
                hook[key] = max(1, round(hook[key] * ratio))


def drop_downloads(model: Any) -> None:
    """Take every ``init_cfg`` that fetches or reads weights out of a model config."""
    for node in nodes(model):
        init = node.get("init_cfg")
        if isinstance(init, Mapping) and kind(init) == "Pretrained":
            node["init_cfg"] = None


# --- the part that inference needs, as JSON ------------------------------------------------------


def test_pipeline(cfg: Any) -> list[Any]:
    """Steps of inference on an image in memory."""
    loader = cfg.get("test_dataloader") or cfg["val_dataloader"]
    steps = leaf(loader["dataset"])["pipeline"]
    kept = [step for step in steps if kind(step) not in ("LoadImageFromFile", "LoadAnnotations")]
    return [{"type": "mmdet.LoadImageFromNDArray"}, *kept]


def extract(cfg: Any) -> dict[str, Any]:
    """What inference needs of a config, JSON-ready; tuples are marked."""
    drop_downloads(cfg["model"])
    wanted = {"model": cfg["model"], "pipeline": test_pipeline(cfg)}
    plain = _encode(wanted)
    json.dumps(plain)
    return dict(plain)


def _encode(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        out = {str(key): _encode(value) for key, value in tree.items()}
        if "type" in out:
            out["type"] = kind(tree)
        return out
    if isinstance(tree, tuple):
        return {"tuple": [_encode(value) for value in tree]}
    if isinstance(tree, list):
        return [_encode(value) for value in tree]
    return tree


def restore(stored: Any, path: Path) -> dict[str, Any]:
    """Undo `extract`.

    Raises:
        CheckpointError: it is not such a part, or names something other than registered classes.
    """
    if not isinstance(stored, Mapping) or not {"model", "pipeline"} <= stored.keys():
        raise CheckpointError(path, "holds no MMDetection model; name the config it was made with")
    for node in nodes(stored):
        name = node.get("type", "A")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Z]\w*|nms|soft_nms", name):
            raise CheckpointError(
                path, f"refused: its config names '{name}', which is not a registered class"
            )
        if isinstance(node.get("init_cfg"), Mapping) and kind(node["init_cfg"]) == "Pretrained":
            raise CheckpointError(path, "refused: its config reads further weights files")
    decoded: dict[str, Any] = _decode(stored)
    return decoded


def _decode(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        if tree.keys() == {"tuple"}:
            return tuple(_decode(value) for value in tree["tuple"])
        return {key: _decode(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_decode(value) for value in tree]
    return tree
