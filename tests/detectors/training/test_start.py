"""Starting weights: what fits is taken, the rest is said."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from dmnet.core.errors import CheckpointError
from dmnet.core.training.start import prefix_of
from dmnet.detectors.base import build_model, save_net
from dmnet.detectors.training.start import start_from

SMALL = {"input_size": 64}


def test_prefix_of_most() -> None:
    own = ["a.x.w", "a.y.w", "b.x.w"]
    assert prefix_of(own, ["x.w", "y.w"]) == "a."
    assert prefix_of(own, ["a.x.w", "z"]) == ""
    assert prefix_of(own, ["nothing"]) == ""


def test_other_class_count_keeps_all_but_the_class_layer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights.pt"
    source = build_model("yolox-nano", SMALL, 3)
    path.write_bytes(save_net(source))
    net = build_model("yolox-nano", SMALL, 5)
    with caplog.at_level(logging.INFO):
        start = start_from(net, path, [])
    assert len(start.new) == len(start.unused) == 6
    assert all("class_out" in name for name in start.new)
    assert set(start.taken) | set(start.new) == set(net.state_dict())
    assert all(torch.equal(net.state_dict()[n], source.state_dict()[n]) for n in start.taken)
    assert "weights.pt: 636 tensors taken" in caplog.text
    assert "6 of the network start anew (body.levels.0.class_out.weight" in caplog.text


def test_a_plain_backbone_is_found_in_the_network(tmp_path: Path) -> None:
    source, net = (build_model("yolov6-n", SMALL, 3) for _ in range(2))
    path = tmp_path / "backbone.pth"
    torch.save(source.body.backbone.state_dict(), path)  # type: ignore[union-attr]
    start = start_from(net, path, [])
    assert start.taken and all(name.startswith("body.backbone.") for name in start.taken)
    assert not start.unused
    assert all(torch.equal(net.state_dict()[n], source.state_dict()[n]) for n in start.taken)


def test_nothing_that_fits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(
        CheckpointError, match=r"none of its 1 tensors .* of yolox-nano .*'fc.weight'"
    ):
        start_from(build_model("yolox-nano", SMALL), path, [])
