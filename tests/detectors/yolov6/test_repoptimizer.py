from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from dmnet.core.errors import ConfigError
from dmnet.detectors.base import build_model, save_net
from dmnet.detectors.yolov6.repoptimizer import LinearAdd, RepOptConv, gradient_multiplier


def scaled_block(cin: int, cout: int, stride: int) -> LinearAdd:
    block = LinearAdd(cin, cout, stride)
    nn.init.uniform_(block.wide_scale, 0.5, 1.5)
    nn.init.uniform_(block.point_scale, 0.5, 1.5)
    block.wide_scale.requires_grad_(False)
    block.point_scale.requires_grad_(False)
    return block


def test_multiplier_by_hand() -> None:
    block = LinearAdd(2, 2)
    with torch.no_grad():
        block.wide_scale.copy_(torch.tensor([2.0, 3.0]))
        block.point_scale.copy_(torch.tensor([5.0, 1.0]))
    found = gradient_multiplier(block)
    assert found[0, 0].tolist() == [[4, 4, 4], [4, 30, 4], [4, 4, 4]]  # 4 + 25 + 1
    assert found[0, 1, 1, 1].item() == 29  # not on the diagonal
    assert found[1, 1].tolist() == [[9, 9, 9], [9, 11, 9], [9, 9, 9]]


@pytest.mark.parametrize(("cin", "cout", "stride"), [(3, 3, 1), (3, 5, 1), (4, 4, 2)])
def test_plain_convolution_follows_the_branches_step_by_step(
    cin: int, cout: int, stride: int
) -> None:
    branches = scaled_block(cin, cout, stride)
    plain = RepOptConv(cin, cout, stride)
    plain.adopt(branches)
    twin = copy.deepcopy(plain)  # a copy multiplies its gradients too
    models: list[nn.Module] = [branches, plain, twin]
    optimizers = [
        torch.optim.SGD(
            [p for p in m.parameters() if p.requires_grad], lr=0.05, momentum=0.9, nesterov=True
        )
        for m in models
    ]
    x, wanted = torch.randn(4, cin, 8, 8), torch.randn(4, cout, 8 // stride, 8 // stride)
    for _ in range(6):
        outputs = []
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            out = model(x)
            (out - wanted).square().mean().backward()
            optimizer.step()
            outputs.append(out.detach())
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs[1], outputs[2])
    assert not torch.allclose(plain.conv.weight, RepOptConv(cin, cout, stride).conv.weight)


def test_search_weights_start_a_repopt_network(tmp_path: Path) -> None:
    searched = build_model("yolov6-n", {"form": "search"}, 2)
    key = "body.backbone.stages.0.1.0"
    state = searched.state_dict()
    state[f"{key}.wide_scale"].fill_(2.0)
    path = tmp_path / "search.pt"
    path.write_bytes(save_net(searched, state))
    net = build_model("yolov6-n", {"form": "repopt", "weights": str(path)}, 2)
    multiplier = net.state_dict()[f"{key}.multiplier"]
    assert multiplier[0, 1, 0, 0].item() == 4.0
    assert multiplier[0, 0, 1, 1].item() == 4.0 + 1.0 + 1.0


def test_weights_without_scales_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rep.pt"
    path.write_bytes(save_net(build_model("yolov6-n", {}, 2)))
    with pytest.raises(ConfigError, match="trained with form 'search'"):
        build_model("yolov6-n", {"form": "repopt", "weights": str(path)}, 2)
