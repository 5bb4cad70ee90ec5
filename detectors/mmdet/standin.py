"""A stand-in for mmcv's compiled module ``mmcv._ext``, made of torchvision's kernels.

Everything in ``mmcv.ops`` reaches its C++ and CUDA code through that one module, which plain Python
installs of mmcv (mmcv-lite, onedl-mmcv without a compiler) do not have. `install` puts this one in
its place; where mmcv has its own compiled module, it steps aside. NMS and RoIAlign agree with the
compiled ones bit for bit; an operator that is missing here raises by name when it is called.

mmcv passes tensors by position and everything else by keyword, under the names used here.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torchvision import ops

_NAME = "mmcv._ext"
_WAY_OUT = "install mmcv built with its compiled operators"


def _wide(values: Tensor) -> Tensor:
    """float16 and bfloat16 as float32: torchvision's CPU kernels take nothing narrower."""
    return values.float() if values.dtype in (torch.half, torch.bfloat16) else values


# --- suppression ---------------------------------------------------------------------------------


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices kept by greedy NMS; ``offset`` 1 is the older box form with inclusive ends."""
    if boxes.numel() == 0:
        return boxes.new_zeros(0, dtype=torch.long)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], 1)
    return Tensor(ops.nms(_wide(boxes), _wide(scores), iou_threshold)).long()


def _decay(iou: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """Score factors of Soft-NMS: 0 hard, 1 linear, 2 Gaussian (Bodla et al. 2017, eq. 1-3)."""
    if method == 0:
        return (iou < iou_threshold).to(iou)
    if method == 1:
        return torch.where(iou >= iou_threshold, 1 - iou, torch.ones_like(iou))
    return torch.exp(-(iou * iou) / sigma)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS; fills ``dets`` ``[N, 5]`` and returns the kept indices in order of their score."""
    scores = scores.clone()
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    rest = torch.arange(len(scores))
    kept: list[int] = []
    while len(rest):
        position = int(scores[rest].argmax())
        best = int(rest[position])
        rest[position] = rest[0]  # mmcv swaps the best with the first: the order of ties
        rest = rest[1:]
        dets[len(kept), :4], dets[len(kept), 4] = boxes[best], scores[best]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[rest, :2])
        high = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        inter = (high - low + offset).clamp(min=0).prod(1)
        iou = inter / (areas[best] + areas[rest] - inter)
        scores[rest] *= _decay(iou, iou_threshold, sigma, method)
        rest = rest[scores[rest] >= min_score]
    return torch.tensor(kept, dtype=torch.long)


# --- pooling of regions --------------------------------------------------------------------------


def _align_arguments(
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> tuple[float, int, int, int, bool]:
    if pool_mode != 1:
        raise NotImplementedError(f"RoIAlign with pool_mode='max' has no stand-in; {_WAY_OUT}")
    return spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **shape: Any
) -> None:
    """RoIAlign (He et al. 2017) with average pooling into ``output``."""
    x = _wide(input)
    arguments = _align_arguments(**shape)
    output.copy_(torch.ops.torchvision.roi_align(x, rois.to(x.dtype), *arguments))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **shape: Any,
) -> None:
    """Gradient of RoIAlign into ``grad_input``."""
    scale, height, width, ratio, aligned = _align_arguments(**shape)
    grad = _wide(grad_output).contiguous()
    found = torch.ops.torchvision._roi_align_backward(
        grad, rois.to(grad.dtype), scale, height, width, *grad_input.shape, ratio, aligned
    )
    grad_input.copy_(found)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoIPool (Girshick 2015) into ``output`` and ``argmax``."""
    x = _wide(input)
    pooled, places = torch.ops.torchvision.roi_pool(
        x, rois.to(x.dtype), spatial_scale, pooled_height, pooled_width
    )
    output.copy_(pooled)
    argmax.copy_(places)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Gradient of RoIPool into ``grad_input``."""
    grad = _wide(grad_output).contiguous()
    size = (pooled_height, pooled_width)
    found = torch.ops.torchvision._roi_pool_backward(
        grad, rois.to(grad.dtype), argmax, spatial_scale, *size, *grad_input.shape
    )
    grad_input.copy_(found)


# --- focal loss ----------------------------------------------------------------------------------


def _focal(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Focal loss an element; the label after the last class is background."""
    classes = input.shape[1]
    wanted = torch.nn.functional.one_hot(target.clamp(0, classes), classes + 1)[:, :classes]
    loss = Tensor(ops.sigmoid_focal_loss(input, wanted.to(input.dtype), alpha=alpha, gamma=gamma))
    if weight is not None and weight.numel():
        loss = loss * weight.to(loss)[target.clamp(max=classes - 1)][:, None]
    return loss


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Sigmoid focal loss (Lin et al. 2017, eq. 5) into ``output``."""
    output.copy_(_focal(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Gradient of the summed focal loss into ``grad_input``."""
    with torch.enable_grad():
        x = input.detach().requires_grad_()
        total = _focal(x, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(total, x)[0])


# --- deformable convolution and attention --------------------------------------------------------


def _gradients(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], grad: Tensor
) -> dict[str, Tensor]:
    """Gradients of ``function(**inputs)`` with regard to each input."""
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
        result = function(**leaves)
    found = torch.autograd.grad(result, list(leaves.values()), grad)
    return dict(zip(leaves, found, strict=True))


def _steps(names: tuple[str, str], geometry: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The stride, padding and dilation from mmcv's names, ``names`` the axes' suffixes.

    Groups need no argument: torchvision reads them off the shapes.
    """
    v1 = "dH" in geometry
    prefixes = ("d", "pad", "dilation") if v1 else ("stride_", "pad_", "dilation_")
    keys = ("stride", "padding", "dilation")
    return {
        key: (geometry[prefix + names[0]], geometry[prefix + names[1]])
        for key, prefix in zip(keys, prefixes, strict=True)
    }


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, *buffers: Tensor, **geometry: int
) -> None:
    """Deformable convolution (Dai et al. 2017) into ``output``."""
    output.copy_(ops.deform_conv2d(input, offset, weight, **_steps(("H", "W"), geometry)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    *buffers: Tensor,
    **geometry: int,
) -> None:
    """Gradients of the deformable convolution for its input and its offsets."""
    steps = _steps(("H", "W"), geometry)
    found = _gradients(
        lambda input, offset: Tensor(ops.deform_conv2d(input, offset, weight, **steps)),
        {"input": input, "offset": offset},
        grad_output,
    )
    grad_input.copy_(found["input"])
    grad_offset.copy_(found["offset"])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    *buffers: Tensor,
    scale: float,
    **geometry: int,
) -> None:
    """Gradient of the deformable convolution for its weight, added to ``grad_weight``."""
    steps = _steps(("H", "W"), geometry)
    found = _gradients(
        lambda weight: Tensor(ops.deform_conv2d(input, offset, weight, **steps)),
        {"weight": torch.zeros_like(grad_weight)},  # linear in it: its value does not matter
        grad_output,
    )
    grad_weight.add_(found["weight"], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Deformable convolution v2 (Zhu et al. 2019) into ``output``."""
    steps = _steps(("h", "w"), geometry)
    output.copy_(
        ops.deform_conv2d(input, offset, weight, bias if with_bias else None, mask=mask, **steps)
    )


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Gradients of the deformable convolution v2 for all its inputs."""
    steps = _steps(("h", "w"), geometry)
    inputs = {"input": input, "weight": weight, "offset": offset, "mask": mask}
    targets = {"input": grad_input, "weight": grad_weight, "offset": grad_offset, "mask": grad_mask}
    if with_bias:
        inputs["bias"], targets["bias"] = bias, grad_bias
    found = _gradients(lambda **k: Tensor(ops.deform_conv2d(**k, **steps)), inputs, grad_output)
    for name, target in targets.items():
        target.copy_(found[name])


def _attention(shapes: Tensor, value: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Multi-scale deformable attention by mmcv's own formulation in PyTorch."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return Tensor(multi_scale_deformable_attn_pytorch(value, shapes, places, weights))


def ms_deform_attn_forward(
    value: Tensor, shapes: Tensor, starts: Tensor, places: Tensor, weights: Tensor, **_: int
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2021)."""
    return _attention(shapes, value, places, weights)


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    places: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_places: Tensor,
    grad_weights: Tensor,
    **_: int,
) -> None:
    """Gradients of multi-scale deformable attention."""
    found = _gradients(
        lambda **k: _attention(shapes, **k),
        {"value": value, "places": places, "weights": weights},
        grad_output,
    )
    grad_value.copy_(found["value"])
    grad_places.copy_(found["places"])
    grad_weights.copy_(found["weights"])


# --- installation --------------------------------------------------------------------------------

_OPERATORS: tuple[Callable[..., Any], ...] = (
    nms, softnms, roi_align_forward, roi_align_backward, roi_pool_forward, roi_pool_backward,
    sigmoid_focal_loss_forward, sigmoid_focal_loss_backward, deform_conv_forward,
    deform_conv_backward_input, deform_conv_backward_parameters, modulated_deform_conv_forward,
    modulated_deform_conv_backward, ms_deform_attn_forward, ms_deform_attn_backward,
)  # fmt: skip


class StandIn(ModuleType):
    """The module put at ``mmcv._ext``."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Answer for every operator, so that mmcv's import-time check of names passes."""
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: object, **__: object) -> NoReturn:
            raise NotImplementedError(f"mmcv operator '{name}' has no stand-in; {_WAY_OUT}")

        return missing


def install() -> bool:
    """Put the stand-in in place unless mmcv has its own operators; to be called before mmdet loads.

    Returns:
        Whether the stand-in is in place.
    """
    if _NAME in sys.modules:
        return isinstance(sys.modules[_NAME], StandIn)
    import mmcv

    if importlib.util.find_spec(_NAME) is not None:
        return False
    module = StandIn(_NAME)
    for operator in _OPERATORS:
        setattr(module, operator.__name__, operator)
    module.__dict__["get_compiler_version"] = lambda: "none (torchvision's kernels)"
    module.__dict__["get_compiling_cuda_version"] = lambda: "none"
    module.__spec__ = importlib.machinery.ModuleSpec(_NAME, None)
    sys.modules[_NAME] = mmcv._ext = module
    return True
