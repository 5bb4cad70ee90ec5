from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmnet.detectors.dense import Objects, paired_iou
from dmnet.detectors.yolov6 import assigner
from dmnet.detectors.yolov6.assigner import Positives
from dmnet.detectors.yolov6.head import FINE_STRIDES, STRIDES, Cells, cells_of

SMALL = cells_of([(4, 4), (2, 2), (1, 1)], torch.device("cpu"))  # an input of 32 x 32
FINE = cells_of([(8, 8), (4, 4), (2, 2), (1, 1)], torch.device("cpu"), FINE_STRIDES)
WIDE = cells_of([(8, 12), (4, 6), (2, 3)], torch.device("cpu"))  # 96 x 64


def objects(boxes: object, labels: object = (0,), image: object = (0,)) -> Objects:
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64).reshape(-1),
        torch.tensor(image, dtype=torch.int64).reshape(-1),
    )


def rows(found: Positives) -> list[tuple[int, int, int, float]]:
    columns = zip(*(column.tolist() for column in found), strict=True)
    return [(i, c, o, round(s, 4)) for i, c, o, s in sorted(columns)]


def test_pairs_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0], [13.0, 13.0, 19.0, 19.0], [4.0, 4.0, 5.0, 5.0]])
    (pairs,) = assigner.inside_pairs(boxes, SMALL)
    found = list(zip(*(column.tolist() for column in pairs), strict=True))
    # four cells at stride 8, one at 16; the centre (16, 16) belongs to the second box, not to the
    # first (half-open); (4, 4) is a centre at stride 8
    assert found == [(0, 0), (0, 1), (0, 4), (0, 5), (0, 16), (1, 20), (2, 0)]


def test_pairs_with_a_level_at_stride_4() -> None:
    boxes = torch.tensor([[13.0, 13.0, 19.0, 19.0], [1.0, 9.0, 3.0, 11.0]])
    (pairs,) = assigner.inside_pairs(boxes, FINE)
    found = list(zip(*(column.tolist() for column in pairs), strict=True))
    # centres (14, 14), (18, 14), (14, 18), (18, 18) at stride 4, (16, 16) at 32; then (2, 10)
    assert found == [(0, 27), (0, 28), (0, 35), (0, 36), (0, 84), (1, 16)]


def dense(boxes: Tensor, cells: Cells) -> list[tuple[int, int]]:
    point = cells.centres[None]
    inside = ((point >= boxes[:, None, :2]) & (point < boxes[:, None, 2:])).all(2)
    return [(int(o), int(c)) for o, c in inside.nonzero().tolist()]


sides = st.integers(-20, 120)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(sides, sides, st.integers(0, 60), st.integers(0, 60)), max_size=8))
def test_pairs_are_all_centres_inside(values: list[tuple[int, int, int, int]]) -> None:
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in values]).reshape(-1, 4) / 1.5
    found = [
        pair
        for part in assigner.inside_pairs(boxes, WIDE)
        for pair in zip(*(column.tolist() for column in part), strict=True)
    ]
    assert found == dense(boxes, WIDE)


def test_tal_by_hand() -> None:
    wanted = objects([0, 0, 16, 16])
    boxes = torch.zeros(1, 21, 4)
    boxes[0, 0] = torch.tensor([0.0, 0.0, 16.0, 16.0])  # IoU 1
    boxes[0, 1] = torch.tensor([0.0, 0.0, 16.0, 8.0])  # IoU 1/2
    boxes[0, 16] = torch.tensor([0.0, 0.0, 16.0, 12.0])  # IoU 3/4
    boxes[0, 20] = torch.tensor([0.0, 0.0, 16.0, 16.0])  # IoU 1, but the centre is outside
    scores = torch.full((1, 21, 2), 0.5)
    scores[0, 16, 0] = 0.8
    found = assigner.task_aligned(scores, boxes, wanted, SMALL, top=2)
    # metrics 0.5 * 1 and 0.8 * (3/4)^6; the scores to learn are scaled to the greatest IoU, 1
    second = 0.8 * 0.75**6 / 0.5
    assert rows(found) == [(0, 0, 0, 1.0), (0, 16, 0, round(second, 4))]


def test_contested_cell_goes_to_the_greater_overlap() -> None:
    both = objects([[0, 0, 8, 8], [0, 0, 8, 16]], [0, 1], [0, 0])
    boxes = torch.zeros(1, 21, 4)
    boxes[0, 0] = torch.tensor([0.0, 0.0, 8.0, 14.0])
    boxes[0, 4] = torch.tensor([0.0, 0.0, 8.0, 16.0])
    scores = torch.full((1, 21, 2), 0.5)
    found = assigner.task_aligned(scores, boxes, both, SMALL)
    assert [(c, o) for _, c, o, _ in rows(found)] == [(0, 1), (4, 1)]


def test_images_do_not_mix() -> None:
    pair = objects([[0, 0, 8, 8], [0, 0, 8, 8]], [0, 0], [0, 1])
    boxes = torch.tensor([0.0, 0.0, 8.0, 8.0]).expand(2, 21, 4)
    found = assigner.task_aligned(torch.full((2, 21, 1), 0.5), boxes, pair, SMALL)
    assert rows(found) == [(0, 0, 0, 1.0), (1, 0, 1, 1.0)]


def test_object_between_the_centres_has_a_cell_only_with_a_least_side() -> None:
    tiny = objects([9, 9, 11, 11])
    boxes, scores = torch.rand(1, 21, 4), torch.rand(1, 21, 1)
    assert len(assigner.task_aligned(scores, boxes, tiny, SMALL).cell) == 0
    assert len(assigner.task_aligned(scores, boxes, tiny, SMALL, min_side=8.0).cell) >= 1


def test_neighbours_that_share_a_cell_have_their_own_at_stride_4() -> None:
    pair = objects([[0, 0, 4, 4], [4, 0, 8, 4]], [0, 0], [0, 0])
    for cells, seen in ((SMALL, 1), (FINE, 2)):
        number = len(cells.centres)
        half = cells.strides.expand(number, 2) / 2
        boxes = torch.cat([cells.centres - half, cells.centres + half], 1)[None]
        found = assigner.task_aligned(
            torch.full((1, number, 1), 0.5), boxes, pair, cells, min_side=8.0
        )
        assert len(found.object.unique()) == seen


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 91), st.floats(0, 59), st.floats(0.5, 4), st.floats(0.5, 4))
def test_every_object_has_a_cell_at_least_side_eight(
    x: float, y: float, w: float, h: float
) -> None:
    one = objects([x, y, x + w, y + h])
    boxes, scores = torch.rand(1, 126, 4), torch.rand(1, 126, 1)
    assert len(assigner.task_aligned(scores, boxes, one, WIDE, min_side=8.0).cell) >= 1


@pytest.mark.parametrize("classes", [1, 3])
def test_no_objects(classes: int) -> None:
    none = objects([], [], [])
    boxes = torch.rand(2, 21, 4)
    assert len(assigner.task_aligned(torch.rand(2, 21, classes), boxes, none, SMALL).cell) == 0
    assert len(assigner.adaptive(boxes, none, SMALL).cell) == 0


# --- against dense arrays ------------------------------------------------------------------------


def random_batch(seed: int, count: int, cells: Cells) -> tuple[Tensor, Tensor, Objects]:
    generator = torch.Generator().manual_seed(seed)
    number = len(cells.centres)
    scores = torch.rand(2, number, 3, generator=generator)
    half = torch.rand(2, number, 2, generator=generator) * 12 + 1
    boxes = torch.cat([cells.centres - half, cells.centres + half], 2)
    low = torch.rand(count, 2, generator=generator) * 60
    high = low + torch.rand(count, 2, generator=generator) * 30
    image = torch.sort(torch.randint(0, 2, (count,), generator=generator)).values
    labels = torch.randint(0, 3, (count,), generator=generator)
    return scores, boxes, Objects(torch.cat([low, high], 1), labels, image)


def tal_by_loops(
    scores: Tensor, boxes: Tensor, wanted: Objects, cells: Cells, top: int
) -> Positives:
    claims: dict[tuple[int, int], list[tuple[float, int, float]]] = {}
    for o, (box, label, image) in enumerate(zip(*wanted, strict=True)):
        rated = []
        for c in [c for _, c in dense(box[None], cells)]:
            iou = float(paired_iou(boxes[image, c][None], box[None]))
            rated.append((float(scores[image, c, label]) * iou**6, iou, c))
        rated.sort(key=lambda r: -r[0])
        for metric, iou, c in rated[:top]:
            claims.setdefault((int(image), c), []).append((iou, o, metric))
    won = {place: max(rivals, key=lambda r: r[0]) for place, rivals in claims.items()}
    out = []
    for (image, c), (_, o, metric) in won.items():
        same = [r for r in won.values() if r[1] == o]
        score = metric / max(r[2] for r in same) * max(r[0] for r in same)
        out.append((image, c, o, score))
    columns = zip(*out, strict=True)
    return Positives(*(torch.tensor(column) for column in columns))


@pytest.mark.parametrize("seed", range(4))
def test_tal_equals_loops(seed: int) -> None:
    scores, boxes, wanted = random_batch(seed, 25, WIDE)
    found = assigner.task_aligned(scores, boxes, wanted, WIDE, top=5)
    for a, b in itertools.zip_longest(
        rows(found), rows(tal_by_loops(scores, boxes, wanted, WIDE, 5))
    ):
        assert a[:3] == b[:3]
        assert a[3] == pytest.approx(b[3], abs=2e-4)


def atss_by_loops(wanted: Objects, cells: Cells, top: int) -> set[tuple[int, int, int]]:
    level = torch.cat([torch.full((r * c,), i) for i, (r, c) in enumerate(cells.grids)])
    half = cells.strides * 2.5
    anchors = torch.cat([cells.centres - half, cells.centres + half], 1)
    claims: dict[tuple[int, int], tuple[float, int]] = {}
    for o, (box, _, image) in enumerate(zip(*wanted, strict=True)):
        away = (cells.centres - (box[:2] + box[2:]) / 2).square().sum(1)
        near: list[int] = []
        for i in range(3):
            members = (level == i).nonzero()[:, 0]
            near += members[away[members].argsort(stable=True)[:top]].tolist()
        iou = paired_iou(anchors[near], box.expand(len(near), 4))
        inside = {c for _, c in dense(box[None], cells)}
        for c, value in zip(near, iou, strict=True):
            if value >= iou.mean() + iou.std() and c in inside:
                key = (int(image), c)
                claims[key] = max(claims.get(key, (0.0, -1)), (float(value), o), key=lambda r: r[0])
    return {(image, c, o) for (image, c), (_, o) in claims.items()}


@pytest.mark.parametrize("seed", range(4))
def test_atss_equals_loops(seed: int) -> None:
    _, boxes, wanted = random_batch(seed, 25, WIDE)
    found = assigner.adaptive(boxes, wanted, WIDE, top=9)
    assert {(i, c, o) for i, c, o, _ in rows(found)} == atss_by_loops(wanted, WIDE, 9)
    iou = paired_iou(boxes[found.image, found.cell], wanted.boxes[found.object])
    assert torch.equal(found.score, iou)


def test_nearest_cells_of_a_corner() -> None:
    row, cell, exists = assigner.nearest_pairs(torch.tensor([[-4.0, -4.0, 4.0, 4.0]]), SMALL, 4)
    assert set(cell[exists].tolist()) == {0, 1, 4, 5, 16, 17, 18, 19, 20}
    assert exists.sum() == 9  # the coarsest level has one cell only
    assert row.unique().tolist() == [0]


# --- many objects --------------------------------------------------------------------------------


def test_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(0, 60, WIDE)
    whole = assigner.task_aligned(*batch, WIDE)
    monkeypatch.setattr(assigner, "PAIRS", 40)
    parts = assigner.task_aligned(*batch, WIDE)
    assert rows(parts) == rows(whole)


def test_no_array_has_more_than_the_pairs_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assigner, "PAIRS", 20_000)
    cells = cells_of([(320 // s, 320 // s) for s in STRIDES], torch.device("cpu"))
    whole = torch.tensor([[0.0, 0.0, 320.0, 320.0]]).expand(400, 4)
    sizes = [len(row) for row, _ in assigner.inside_pairs(whole, cells)]
    assert sum(sizes) == 400 * len(cells.centres)
    assert max(sizes) <= assigner.PAIRS + len(cells.centres)


def test_nine_hundred_objects() -> None:
    cells = cells_of([(80, 80), (40, 40), (20, 20)], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(900, 2, generator=generator) * 600
    boxes = torch.cat([low, low + 5 + torch.rand(900, 2, generator=generator) * 30], 1)
    wanted = Objects(boxes, torch.zeros(900, dtype=torch.long), torch.zeros(900, dtype=torch.long))
    half = torch.full((1, 8400, 2), 10.0)
    predicted = torch.cat([cells.centres - half, cells.centres + half], 2)
    found = assigner.task_aligned(
        torch.full((1, 8400, 1), 0.1), predicted, wanted, cells, min_side=8.0
    )
    places = found.cell.tolist()
    assert len(places) == len(set(places))
    assert len(found.object.unique()) > 700
    assert ((found.score >= 0) & (found.score <= 1)).all()
