"""Every pair (what changed upstream, stage that reads it): redone, refused, or proved irrelevant.

One world is copied for every change; its stages are then run from the last to the first, so that
each one sees what was made before the change. What is refused names a command; following the
commands until nothing is refused must end well.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dmnet.core.errors import InputError
from dmnet.core.formats import parts
from dmnet.core.images import encode_jpeg
from dmnet.core.journal import read_header, read_journal
from dmnet.core.records import Detections
from dmnet.pipeline.cli import main
from dmnet.pipeline.inputs import FoundDetections

from .conftest import draw_scene, tree, write_split

SETTINGS = """
train_density: {epochs: 1, batch: 1, crop: 32, warmup_epochs: 0, ema: 0}
crop: {threshold: 0.3, min_side: 60}
train_detector:
  model: yolov6-n
  epochs: 1
  batch: 4
  pictures: 0
  yolov6: {input_size: 64, score_threshold: 1e-4}
detect: {score_threshold: 0.001}
fuse_eval: {protocols: [coco@500], pictures: 0, bootstrap: 0}
"""
STEPS = [("train", s) for s in ("density", "crop", "convert")] + [("val", "density")]
STEPS += [("train", "train-density"), ("train", "train-detector")]
STEPS += [("val", s) for s in ("predict-density", "crop", "convert", "detect", "fuse-eval")]


@dataclass
class World:
    """Data and artifacts of one run, and the command line on them."""

    root: Path
    capsys: pytest.CaptureFixture[str] | None = None
    options: list[str] = field(default_factory=list)
    said: str = ""
    history: list[str] = field(default_factory=list)

    @property
    def val(self) -> Path:
        return self.root / "data" / "VisDrone2019-DET-val"

    @property
    def train(self) -> Path:
        return self.root / "data" / "VisDrone2019-DET-train"

    def made(self, stage: str, split: str = "val") -> Path:
        return self.root / "made" / "default" / split / stage

    def run(self, stage: str, *options: str, split: str = "val", data: str = "data") -> int:
        places = ["--data", str(self.root / data), "--artifacts", str(self.root / "made")]
        settings = ["--config", str(self.root / "small.yaml"), "--workers", "1"]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main([stage, *places, *settings, "--split", split, *options])
        self.said = said.getvalue()
        self.history.append(self.said)
        return code

    def follow(self) -> int:
        """Run the command that the last message proposed."""
        found = re.search(r"(?:Renew|Make) it with: (make .*?)(?: \(or .*\))?$", self.said, re.M)
        found = found or re.search(r"Here: (make .*?)(?: \(or .*\))?$", self.said, re.M)
        assert found, self.said
        words = shlex.split(found[1])[1:]
        options: list[str] = []
        for word in words[1:]:
            name, _, value = word.partition("=")
            flag = {"MODE": "--split"}.get(name, f"--{name.lower().replace('_', '-')}")
            options += shlex.split(value) if name == "SET" else [flag, value]
        settings = ["--config", str(self.root / "small.yaml"), "--workers", "1"]
        code = main([words[0], *settings, *options])
        assert self.capsys is not None
        self.capsys.readouterr()
        return code


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("chain"))


def make_base(root: Path) -> Path:
    """A whole run that nothing disturbed."""
    world = World(root)
    write_split(world.root / "data", "train", range(2), (120, 160))
    write_split(world.root / "data", "val", range(100, 103), (120, 160))
    (world.root / "small.yaml").write_text(SETTINGS)
    for split, stage in STEPS:
        assert world.run(stage, split=split) == 0
    assert len((world.made("detect") / "results_crops.json").read_text()) > 100
    return world.root


@pytest.fixture
def world(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    """A copy to spoil; files keep their times."""
    for name in ("data", "made"):
        shutil.copytree(base / name, tmp_path / name)
    shutil.copy(base / "small.yaml", tmp_path)
    return World(tmp_path, capsys)


def picture(seed: int) -> bytes:
    return encode_jpeg(draw_scene(seed, (120, 160))[0])


def move_a_box(path: Path) -> None:
    """The same length, other numbers."""
    rows = path.read_text().splitlines()
    x, rest = rows[0].split(",", 1)
    path.write_text("\n".join([f"{(int(x) + 1) % 10}{',' if len(x) == 1 else x[1:] + ','}{rest}",
                               *rows[1:]]) + "\n")  # fmt: skip


def image_added(world: World) -> None:
    """With its annotation, so that the ids of the others move."""
    shutil.copy(world.val / "annotations" / "100.txt", world.val / "annotations" / "000.txt")
    (world.val / "images" / "000.jpg").write_bytes(picture(7))


def image_changed(world: World) -> None:
    (world.val / "images" / "101.jpg").write_bytes(picture(8))


def image_removed(world: World) -> None:
    (world.val / "images" / "101.jpg").unlink()
    (world.val / "annotations" / "101.txt").unlink()


def annotation_changed(world: World) -> None:
    move_a_box(world.val / "annotations" / "101.txt")


def train_annotation_changed(world: World) -> None:
    move_a_box(world.train / "annotations" / "001.txt")


def other_maps(world: World) -> None:
    assert world.run("density", "--density.sigma.fixed", "3") == 0


def other_windows(world: World) -> None:
    path = world.root / "small.yaml"
    path.write_text(path.read_text().replace("threshold: 0.3,", "slicer: uniform,"))
    assert world.run("crop") == 0


def other_density_network(world: World) -> None:
    for split in ("train", "val"):
        assert world.run("density", "--density.sigma.fixed", "3", split=split) == 0
    assert world.run("train-density", split="train") == 0, world.said
    for split in ("train", "val"):
        assert world.run("density", split=split) == 0
    # the maps are the old ones again; the network was trained on others


def other_labels(world: World) -> None:
    assert world.run("convert", "--convert.ignored", "false", split="train") == 0


def another_detector(world: World) -> None:
    assert world.run("train-detector", "--train-detector.seed", "1", split="train") == 0


def detected_otherwise(world: World) -> None:
    assert world.run("detect", "--detect.score-threshold", "1") == 0


def predicted_otherwise(world: World) -> None:
    assert world.run("predict-density", "--predict-density.overlap", "8") == 0


def another_data(world: World) -> None:
    """The same names, other pictures."""
    shutil.rmtree(world.root / "data")
    write_split(world.root / "data", "train", range(2), (120, 160))
    write_split(world.root / "other", "val", range(200, 203), (120, 160))
    for old in sorted((world.root / "other").rglob("2*.*")):
        old.rename(old.with_name("1" + old.name[1:]))
    (world.root / "other" / "VisDrone2019-DET-val").rename(world.val)


def damaged(path: str, split: str = "val") -> Callable[[World], None]:
    def damage(world: World) -> None:
        stage, _, name = path.partition("/")
        file = world.made(stage, split) / name
        file.write_bytes(file.read_bytes()[:-1] + b"?")

    damage.__name__ = f"damaged_{path}"
    return damage


def deleted(stage: str, split: str = "val") -> Callable[[World], None]:
    def delete(world: World) -> None:
        shutil.rmtree(world.made(stage, split))

    delete.__name__ = f"deleted_{split}_{stage}"
    return delete


def weights_gone(world: World) -> None:
    (world.made("train-detector", "train") / "weights.pt").unlink()


# predict-density waits where the validation images changed: its network was chosen on them;
# fuse-eval waits where small.yaml names another setting of detect than it was run with.
# what each stage of STEPS does after the change, in that order; a dot: "N done, M kept" of a run
# that looked and found nothing to do; R: refused; a number: so many items made again
TABLE: list[tuple[Callable[[World], None], str]] = [
    #                          train       val train      val
    #                          den cro con den t-de t-dt  pre cro con det fus
    (image_added,              ". . . 1 R .  R R R R R"),
    (image_changed,            ". . . 1 R .  R R R R R"),
    (image_removed,            ". . . . R .  R R R R R"),
    (annotation_changed,       ". . . 1 R .  R R R R R"),
    (train_annotation_changed, "1 R R . R R  R . . R R"),
    (other_maps,               ". . . 3 1 .  R 3 R R R"),
    (other_windows,            ". 2 R . . R  . . 3 3 R"),
    (other_density_network,    ". . . . 1 .  R . . . ."),
    (other_labels,             ". . 2 . . 1  . . . R R"),
    (another_detector,         ". . . . . 1  . . . 6 R"),
    (detected_otherwise,       ". . . . . .  . . . 6 R"),
    (predicted_otherwise,      ". . . . . .  3 . . . ."),
    (another_data,             ". . . 3 R .  R R R R R"),
    (damaged("density/101.h5"),          ". . . R R .  R R R R R"),
    (damaged("crop/crops.json"),         ". . . . . .  . R R R R"),
    (damaged("detect/whole/101.json"),   ". . . . . .  . . . R R"),
    (damaged("detect/crops/101.json"),   ". . . . . .  . . . R R"),
    (damaged("train-detector/weights.pt", "train"), ". . . . . R  . . . R R"),
    (damaged("convert/crop-instances.json", "train"), ". . R . . R  . . . R R"),
    (deleted("density"),                 ". . . 3 R .  . R R R R"),
    (deleted("crop"),                    ". . . . . .  . 3 R R R"),
    (deleted("detect"),                  ". . . . . .  . . . 6 R"),
    (deleted("train-detector", "train"), ". . . . . 1  . . . R R"),
    (deleted("convert", "train"),        ". . 2 . . R  . . . . ."),
    (weights_gone,                       ". . . . . 1  . . . R R"),
]  # fmt: skip


def outcome(world: World, stage: str, split: str) -> str:
    """Run a stage: ``R``, ``.``, or the number of items that were made again."""
    before = tree(world.made(stage, split)) if world.made(stage, split).exists() else {}
    code = world.run(stage, split=split)
    if code == 2:
        now = tree(world.made(stage, split)) if world.made(stage, split).exists() else {}
        assert now == before, "refused, and yet something was written"
        return "R"
    assert code == 0, world.said
    done = re.search(rf"{stage} {split}: (\d+) done", world.said)
    assert done, world.said
    return done[1] if done[1] != "0" else "."


@pytest.mark.parametrize(("change", "expected"), TABLE, ids=[t[0].__name__ for t in TABLE])
def test_what_changed_upstream_is_never_used_unseen(
    world: World, change: Callable[[World], None], expected: str
) -> None:
    change(world)
    found = [outcome(world, stage, split) for split, stage in reversed(STEPS)]
    said = " ".join(reversed(found))
    assert said == " ".join(expected.split()), world.history


@pytest.mark.parametrize("change", [image_added, annotation_changed, other_windows, another_data])
def test_following_the_commands_renews_everything(
    world: World, change: Callable[[World], None]
) -> None:
    change(world)
    for _ in range(12):
        if world.run("fuse-eval") == 0:
            break
        assert world.follow() == 0
    else:
        pytest.fail(f"still refused: {world.said}")
    assert [outcome(world, stage, "val") for stage in ("fuse-eval", "detect", "crop")] == ["."] * 3


def test_windows_of_equal_count_do_not_get_old_boxes(world: World) -> None:
    """W1: 2 x 3 tiles, then 3 x 2; `detect` is forgotten."""
    cut = ["--crop.slicer", "uniform"]
    for stage in ("crop", "detect", "fuse-eval"):
        assert world.run(stage, *cut) == 0
    turned = [*cut, "--crop.rows", "3", "--crop.cols", "2"]
    assert world.run("crop", *turned) == 0
    assert world.run("fuse-eval", *turned) == 2
    assert "'detect'" in world.said and "make detect" in world.said
    assert world.run("fuse-eval", *turned, "--verify") == 2


def test_foreign_windows_of_equal_count_do_not_get_old_boxes(world: World, tmp_path: Path) -> None:
    """W1 by CROPS=: detections of this run's crops, scored on windows from elsewhere."""
    given = json.loads((world.made("crop") / "crops.json").read_text())
    for row in given["images"]:
        row["window"][2] -= 1
        row["width"] -= 1
    (tmp_path / "given.json").write_text(json.dumps(given))
    assert world.run("fuse-eval", "--crops", str(tmp_path / "given.json")) == 2
    assert f"CROPS={tmp_path / 'given.json'}" in world.said
    other = ["--crops", str(tmp_path / "given.json"), "--detections", str(world.made("detect"))]
    assert world.run("fuse-eval", *other) == 2
    assert "was not made on the image" in world.said


def test_boxes_and_windows_meet_by_window_not_by_place(tmp_path: Path) -> None:
    """Windows in another order than asked for, and windows that are not there."""
    left, right, whole = (0, 0, 80, 120), (80, 0, 160, 120), (0, 0, 160, 120)
    found = {left: [1, 2, 3, 4], right: [5, 6, 7, 8], whole: [9, 9, 10, 10]}
    boxes = {w: Detections([b], [0.5], [4]) for w, b in found.items()}  # type: ignore[list-item,arg-type]
    for part, windows in (("whole", [whole]), ("crops", [right, left])):
        (tmp_path / part).mkdir()
        data = parts.write_windows((window, boxes[window]) for window in windows)
        (tmp_path / part / "100.json").write_bytes(data)
    stored = FoundDetections(tmp_path)
    image, cuts = stored.read("100", (120, 160), [left, right])
    assert image.boxes.tolist() == [found[whole]]
    assert [cut.boxes.tolist() for cut in cuts] == [[found[left]], [found[right]]]
    with pytest.raises(InputError, match=r"no detections of the window \(0, 0, 7, 7\); run detect"):
        stored.read("100", (120, 160), [left, (0, 0, 7, 7)])
    with pytest.raises(InputError, match=r"no detections of the window \(0, 0, 160, 121\)"):
        stored.read("100", (121, 160), [left])


def test_ids_follow_an_added_image_into_every_result(world: World) -> None:
    """W2: boxes stay as they are, the numbers of the images move."""
    maps = world.root / "maps"
    shutil.copytree(world.made("density"), maps)
    for name in ("stage.json", "items.jsonl", "log.txt"):
        (maps / name).unlink()
    options = ["--density", str(maps), "--detector-weights", str(world.root / "net.pt")]
    shutil.copy(world.made("train-detector", "train") / "weights.pt", world.root / "net.pt")
    for stage in ("crop", "detect", "fuse-eval"):
        assert world.run(stage, *options) == 0
    before = ids_in(world)
    assert before["whole"] <= {1, 2, 3}
    shutil.copy(maps / "100.h5", maps / "000.h5")
    image_added(world)
    for stage in ("crop", "detect", "fuse-eval"):
        assert world.run(stage, *options) == 0
    assert "1 done, 3 kept" in world.said
    known = json.loads((world.made("crop") / "crops.json").read_text())
    crops = {row["id"]: row["parent_id"] for row in known["images"]}
    after = ids_in(world)
    assert {i + 1 for i in before["fused"]} <= after["fused"] <= {1, 2, 3, 4}
    assert {i + 1 for i in before["whole"]} <= after["whole"] <= {1, 2, 3, 4}
    assert len(after["crops"]) > len(before["crops"]) and after["crops"] <= crops.keys()


def ids_in(world: World) -> dict[str, set[int]]:
    places = {"whole": ("detect", "results_images.json"), "crops": ("detect", "results_crops.json"),
              "fused": ("fuse-eval", "results.json")}  # fmt: skip
    return {
        name: {row["image_id"] for row in json.loads((world.made(stage) / file).read_text())}
        for name, (stage, file) in places.items()
    }


def test_numbers_of_given_crops_follow_into_every_result(world: World, tmp_path: Path) -> None:
    """W2: CROPS= with other ids and the same windows: nothing is detected or merged again."""
    path = tmp_path / "given.json"
    given = json.loads((world.made("crop") / "crops.json").read_text())
    path.write_text(json.dumps(given))
    for stage in ("detect", "fuse-eval"):
        assert world.run(stage, "--crops", str(path)) == 0
    before = ids_in(world)
    for row in given["parents"]:
        row["id"] += 50
    for row in given["images"]:
        row["id"], row["parent_id"] = row["id"] + 50, row["parent_id"] + 50
    path.write_text(json.dumps(given))
    for stage in ("detect", "fuse-eval"):
        assert world.run(stage, "--crops", str(path)) == 0
        assert " 0 done, " in world.said
    assert ids_in(world) == {name: {i + 50 for i in ids} for name, ids in before.items()}


def test_labels_of_other_crops_are_not_trained_on(world: World, tmp_path: Path) -> None:
    """W3: convert with some crops, train-detector with others of equal names and sizes."""
    given = json.loads((world.made("crop", "train") / "crops.json").read_text())
    for name, window in (("a", [0, 0, 100, 100]), ("b", [20, 10, 120, 110])):
        for row in given["images"]:
            row |= {"window": window, "width": 100, "height": 100}
        (tmp_path / f"{name}.json").write_text(json.dumps(given))
    assert world.run("convert", "--crops", str(tmp_path / "a.json"), split="train") == 0
    assert world.run("train-detector", "--crops", str(tmp_path / "b.json"), split="train") == 2
    assert "make convert MODE=train" in world.said
    assert f"CROPS={tmp_path / 'b.json'}" in world.said


def test_two_crops_of_one_name_both_survive(world: World, tmp_path: Path) -> None:
    """W4: crops made elsewhere, two of them called alike."""
    given = json.loads((world.made("crop") / "crops.json").read_text())
    for row in given["images"]:
        row["file_name"] = "crop.png"
    (tmp_path / "given.json").write_text(json.dumps(given))
    for _ in range(2):
        assert world.run("convert", "--crops", str(tmp_path / "given.json")) == 0
    truth = json.loads((world.made("convert") / "crop-instances.json").read_text())
    assert len(truth["images"]) == len(given["images"]) > 2
    assert {row["id"] for row in truth["images"]} == {row["id"] for row in given["images"]}
    assert len(list((world.made("convert") / "crop-voc").glob("*.xml"))) == len(given["images"])


def test_another_data_with_equal_names_is_not_scored(world: World) -> None:
    """W5: old detections, new truth."""
    another_data(world)
    assert world.run("fuse-eval") == 2
    assert not re.search(r"^coco@500 ", world.said, re.M)


def test_verify_reaches_the_ground_truth(world: World) -> None:
    """W6: annotations changed under the same size and time."""
    path = world.val / "annotations" / "101.txt"
    state = path.stat()
    move_a_box(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert world.run("fuse-eval", "--verify") == 2
    elsewhere = ["--crops", str(world.made("crop") / "crops.json"),
                 "--detections", str(world.made("detect"))]  # fmt: skip
    before = (world.made("fuse-eval") / "scores.json").stat().st_mtime_ns
    assert world.run("fuse-eval", *elsewhere, "--verify") == 0
    assert "0 done, 3 kept" in world.said
    assert (world.made("fuse-eval") / "scores.json").stat().st_mtime_ns > before


def test_maps_of_another_network_are_not_cut(world: World, tmp_path: Path) -> None:
    """W7: predict-density with one network, crop with another one named."""
    own = world.made("train-density", "train") / "weights.pt"
    other = tmp_path / "other.pt"
    assert world.run("crop", "--density", "predicted") == 0
    assert world.run("train-density", "--train-density.seed", "1", split="train") == 0
    shutil.copy(own, other)
    assert world.run("crop", "--density", "predicted") == 2
    assert "make predict-density MODE=val" in world.said and "weights" in world.said
    assert world.run("crop", "--density", "predicted", "--weights", str(other)) == 2
    assert f"WEIGHTS={other}" in world.said
    assert world.follow() == 0
    assert world.run("crop", "--density", "predicted", "--weights", str(other)) == 0
    assert world.run("crop", "--density", "predicted") == 0  # as recorded
    shutil.copy(world.made("train-detector", "train") / "weights.pt", other)
    assert world.run("crop", "--density", "predicted") == 2


def test_an_artifact_says_what_it_was_made_from(world: World) -> None:
    header = read_header(world.made("fuse-eval"))
    assert header is not None
    assert [(up["stage"], up["split"]) for up in header["made_from"]] == [
        ("crop", "val"), ("detect", "val")
    ]  # fmt: skip
    assert header["data"]["split"] == "val"
    assert header["settings"]["protocols"] == ["coco@500"]
    assert header["options"]["data"].endswith("data")


def states(world: World, *options: str, split: str = "val") -> dict[tuple[str, str], str]:
    """First word of status for every stage; nothing of the run is repeated on the command line."""
    assert world.capsys is not None
    code = main(["status", "--artifacts", str(world.root / "made"), "--split", split, *options])
    world.said = world.capsys.readouterr().out
    assert code == 0
    words = [line.split()[:3] for line in world.said.splitlines()]
    return {(where, stage): state for where, stage, state in words}


def test_status_needs_nothing_repeated(world: World) -> None:
    found = states(world)
    assert {found[step] for step in STEPS} == {"fresh"}, world.said
    assert world.run("crop", "--density", "predicted") == 0
    assert world.run("detect", "--detect.score-threshold", "0.002") == 0
    assert world.run("fuse-eval", "--detect.score-threshold", "0.002") == 0
    found = states(world)
    assert {state for step, state in found.items() if step != ("val", "convert")} <= {
        "fresh",
        "absent",
    }


def test_status_follows_what_is_stale(world: World) -> None:
    path = world.root / "small.yaml"
    path.write_text(path.read_text().replace("threshold: 0.3,", "slicer: uniform,"))
    assert world.run("crop") == 0
    found = states(world)
    assert found["val", "crop"] == "fresh" and found["val", "density"] == "fresh"
    assert found["val", "detect"] == found["val", "fuse-eval"] == found["val", "convert"] == "stale"
    assert "make detect" in world.said
    found = states(world, "--crop.rows", "3")
    assert found["val", "crop"] == "stale" and "rows 2 -> 3" in world.said


def test_an_artifact_of_before_is_read_or_refused_with_the_reason(world: World) -> None:
    """Headers that tell neither options nor settings; detections without their windows."""
    for stage in ("crop", "detect"):
        path = world.made(stage) / "stage.json"
        header = json.loads(path.read_text())
        for name in ("options", "settings", "made_from", "data", "journal", "sum"):
            del header[name]
        if stage == "detect":
            header["version"] = 1
        path.write_text(json.dumps(header))
    assert world.run("convert") == 0
    assert world.run("fuse-eval") == 2
    assert "version 1 -> 2" in world.said and "make detect" in world.said


def test_caps_are_said(world: World) -> None:
    """`merge.top_n`, and what the files of the VisDrone protocol hold."""
    every = ["--fuse-eval.merge.top-n", "0"]
    assert world.run("fuse-eval", *every) == 0
    assert "left out" not in world.said
    counts = [record.value["detections"][2]
              for record in read_journal(world.made("fuse-eval")).values()]  # fmt: skip
    most = max(counts)
    assert most > 2
    assert world.run("fuse-eval", "--fuse-eval.merge.top-n", "2") == 0
    cut = [count - 2 for count in counts if count > 2]
    assert f"{sum(cut)} boxes of {len(cut)} images left out: fuse-eval.merge.top_n" in world.said


def test_files_of_visdrone_are_cut_only_for_its_protocol(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmnet.core.formats.visdrone.MAX_RESULTS", 2)
    every = ["--fuse-eval.merge.top-n", "0"]
    assert world.run("fuse-eval", *every) == 0
    files = sorted((world.made("fuse-eval") / "visdrone").glob("*.txt"))
    assert max(len(path.read_text().splitlines()) for path in files) > 2
    assert world.run("fuse-eval", *every, "--fuse-eval.protocols", "visdrone") == 0
    assert "images left out: files of visdrone/ hold 2 boxes per image" in world.said
    assert max(len(path.read_text().splitlines()) for path in files) == 2
