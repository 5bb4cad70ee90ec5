"""Options of the stages, and what they make: the `Context` of a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dmnet.core import config
from dmnet.core.dataset import split_name
from dmnet.core.errors import ConfigError
from dmnet.core.presets import parse_overrides, read_preset
from dmnet.core.shards import Shard
from dmnet.pipeline.buckets import from_buckets, place
from dmnet.pipeline.context import STAGES, Context
from dmnet.pipeline.executors.base import EXECUTORS
from dmnet.pipeline.models import CONFIGS, TABLE, entries, weights_file
from dmnet.pipeline.outcome import Parser, add_max_bad, number, processes

_ONLY = {
    "--sizes": {"density", "crop"},
    "--weights": {"predict-density"},
    "--density": {"crop"},
    "--crops": {"convert", "train-detector", "detect", "fuse-eval"},
    "--detections": {"fuse-eval"},
    "--detector": {"train-detector", "detect"},
    "--detector-weights": {"detect"},
    "--device": {"train-density", "predict-density", "train-detector", "detect"},
}
"""Options that not every stage heeds; every one takes them, and only these list them."""


def stage_parser(verb: str) -> argparse.ArgumentParser:
    """The options of the stages, the same for all."""
    parser = Parser(prog=f"dmnet {verb}", add_help=False, allow_abbrev=False)

    def add(*names: str, help: str, **how: Any) -> None:
        heeded = verb not in STAGES or verb in _ONLY.get(names[0], STAGES)
        parser.add_argument(*names, help=help if heeded else argparse.SUPPRESS, **how)

    add("-h", "--help", action="store_true", help="this text")
    add("--data", type=place, metavar="DIR",
        help="data set: a folder or bucket (s3://bucket/data) of VisDrone, YOLO, Pascal VOC, COCO, "
        "DOTA or LabelMe, or its data.yaml or JSON file")  # fmt: skip
    add("--split", "--mode", default="val", metavar="NAME",
        help="part of the data by its own name (VisDrone: test is test-dev); all is every one that "
        "is there")  # fmt: skip
    add("--run", default="default", metavar="NAME", help="artifacts of this run lie side by side")
    add("--artifacts", type=Path, default=Path("artifacts"), metavar="DIR",
        help="where artifacts are written: DIR/<run>/<split>/<stage>/")  # fmt: skip
    add("--config", action="append", default=[], metavar="PRESET",
        help="YAML file, or name of one in configs/ or of a model; later ones win")  # fmt: skip
    add("--sizes", type=place, metavar="CSV",
        help="image sizes (columns split,image,width,height) instead of image files")  # fmt: skip
    add("--weights", type=place, metavar="FILE",
        help="density network to predict with (a plain MCNN state_dict will do)")  # fmt: skip
    add("--density", default="", metavar="true|predicted|DIR",
        help="maps to crop by: ground truth (default of 'crop'), predicted (default of 'all'), "
        "or a folder of .h5/.npy/.npz files")  # fmt: skip
    add("--crops", type=Path, metavar="DIR|crops.json", help="crop windows made elsewhere")
    add("--detections", type=Path, metavar="DIR",
        help="folder with results_images.json and results_crops.json made elsewhere")  # fmt: skip
    add("--detector", metavar="NAME", help="short for --train-detector.model NAME")
    add("--detector-weights", type=place, metavar="FILE", help="detector to run")
    add(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, or auto; several for predict-density and detect: cuda:0,cuda:1",
    )
    add(
        "--workers",
        type=processes,
        default=0,
        metavar="N",
        help="processes (0: by cores and work)",
    )
    add("--shard", type=Shard.of, metavar="I/N",
        help="only part I of N, say of a Slurm array; `dmnet merge STAGE` joins them")  # fmt: skip
    add_executor(add)
    add("--cache-gb", type=number(0.001, 1e6, float), default=20.0, metavar="GB",
        help="room for files fetched from buckets (in $DMNET_CACHE or ~/.cache/dmnet)")  # fmt: skip
    add("--force", action="store_true", help="overwrite own files that were changed by hand")
    add("--verify", action="store_true", help="compare digests of all files, trust no times")
    add_max_bad(add, "items")
    return parser


def add_executor(add: Callable[..., Any]) -> None:
    """Options that say who does the work; ``add`` as `argparse.ArgumentParser.add_argument`."""
    add("--executor", choices=EXECUTORS, default="local",
        help="who does the work: processes of this machine, or a Ray cluster")  # fmt: skip
    add("--ray-address", metavar="HOST:PORT",
        help="Ray cluster to use (auto: the one running here); without it one is made")  # fmt: skip
    add("--ray-actors", type=processes, default=0, metavar="N",
        help="copies of the network on the cluster (0: one a GPU, or every 4 cores)")  # fmt: skip
    add("--ray-gpus", type=number(0, 64, float), default=1.0, metavar="SHARE",
        help="GPUs of each copy; parts of one (0.25) let several share it")  # fmt: skip


def context_of(options: argparse.Namespace, overrides: list[str]) -> Context:
    """Options, presets and overrides as one `Context`."""
    settings: dict[str, object] = {}
    for preset in options.config:
        settings = config.merged(settings, _preset(preset))
    settings = config.merged(settings, parse_overrides(overrides))
    if options.detector:
        short = {"train_detector": {"model": options.detector}}
        settings = config.merged(short, settings)
    fields = {
        name: value
        for name, value in vars(options).items()
        if name not in ("help", "config", "max_bad", "cache_gb")
    }
    fields |= from_buckets(fields, options.cache_gb)
    fields["data"] = fields["data"] or Path("data")
    _check_folder("--split", options.split, options.artifacts)
    fields["weights"] = weights_file(fields["weights"], "density")
    fields["detector_weights"] = weights_file(fields["detector_weights"], "detector")
    fields["split"] = split_name(fields["data"], options.split)
    _check_folder("--run", options.run, options.artifacts)
    context = Context(**fields, settings=settings)
    context.check_settings()
    return context


def _check_folder(option: str, name: str, inside: Path) -> None:
    """Refuse a name that is no folder inside the artifacts.

    Raises:
        ConfigError: names option and folder.
    """
    if name in ("", ".") or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigError(f"{option} {name}: must be the name of a folder inside {inside}")


def _preset(name: str) -> Mapping[str, object]:
    """Settings of a YAML file, of a shipped preset, or of a shipped model.

    Raises:
        ConfigError: there is none of this name.
    """
    path = Path(name)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return read_preset(path)
    models = entries()
    if name in models:
        return models[name].settings
    shipped = {file.stem: file for file in sorted(CONFIGS.glob("*.yaml")) if file != TABLE}
    if name not in shipped:
        text = config.unknown(f"--config {name}", name, {**shipped, **models})
        raise ConfigError(text.replace("setting", "preset"))
    return read_preset(shipped[name])
