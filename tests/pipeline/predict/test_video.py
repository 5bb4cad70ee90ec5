"""Videos frame by frame: as the extracted frames, resumed, annotated with the same length."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from dmnet.core import limits
from dmnet.core.errors import InputError
from dmnet.core.images import read_image
from dmnet.pipeline.predict import video
from dmnet.pipeline.predict.model import Model
from dmnet.pipeline.predict.settings import VideoConfig
from tests.campaigns import fuzz
from tests.pipeline.conftest import tree
from tests.pipeline.predict.conftest import Finder, Predict, draw, write_png

FRAMES, RATE, SIZE = 100, 12.5, (120, 160)

KILLER = Path(__file__).parents[1] / "killer.py"


def frame(index: int) -> np.ndarray:
    """A red box that moves to the right, and a blue one that stands still."""
    x = 5 + index
    return draw(SIZE, [(x, 20, x + 24, 50, 1), (60, 80, 90, 110, 4)])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    return film(path, [frame(index) for index in range(FRAMES)])


def film(path: Path, pictures: Sequence[np.ndarray]) -> Path:
    size = pictures[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, size)
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_frames_are_those_of_the_file(clip: Path) -> None:
    opened = video.open_video(clip)
    assert (opened.size, opened.frames, opened.rate) == (SIZE, FRAMES, RATE)
    found = dict(video.frames(opened, [range(3, 5), range(68, 70)]))
    assert list(found) == [3, 4, 68, 69]
    for index, image in found.items():
        assert image is not None
        assert np.abs(image.astype(int) - frame(index)).mean() < 4


def test_as_the_extracted_frames(predict: Predict, clip: Path, tmp_path: Path) -> None:
    for index, image in video.frames(video.open_video(clip)):
        write_png(tmp_path / "frames" / f"{index:06d}.png", image)
    assert predict(clip, "--density-every", "1") == 0
    assert predict(tmp_path / "frames", out="stills") == 0
    moving = rows(tmp_path / "out/frames/clip.csv")
    still = rows(tmp_path / "stills/predictions.csv")
    assert len(moving) == len(still) == 2 * FRAMES
    columns = ("class", "score", "x1", "y1", "x2", "y2")
    assert [[r[c] for c in columns] for r in moving] == [[r[c] for c in columns] for r in still]
    assert moving[3]["seconds"] == "0.080"
    coco = json.loads((tmp_path / "out/predictions.json").read_text())
    assert coco["images"][12]["file_name"] == "clip.avi#000012"


def test_the_annotated_video_has_the_same_length_and_rate(
    predict: Predict, clip: Path, tmp_path: Path
) -> None:
    assert predict(clip) == 0
    shown = video.open_video(tmp_path / "out/pictures/clip.mp4")
    assert (shown.frames, shown.rate, shown.size) == (FRAMES, RATE, SIZE)
    pictures = dict(video.frames(shown))
    assert np.abs(pictures[40].astype(int) - frame(40)).mean() > 1  # boxes and scores


def test_density_every_kth_frame(
    predict: Predict, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.pipeline.predict.conftest import Counter

    looked = []
    usual = Counter.predict
    monkeypatch.setattr(
        Counter, "predict", lambda self, image, **how: looked.append(1) or usual(self, image)
    )
    predict(clip, "--density-every", "8")
    assert len(looked) == -(-FRAMES // 8)
    assert VideoConfig(density_every=8).segment == 32
    assert VideoConfig(density_every=50).segment == 50


def test_stopped_and_started_again(
    predict: Predict,
    clip: Path,
    tmp_path: Path,
    finder: Finder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predict(clip, "--slicer", "none", out="whole")
    assert len(finder.seen) == FRAMES
    finder.seen.clear()
    usual = Finder.predict

    def stopping(self: Finder, images: list) -> list:
        if len(self.seen) == 50:
            raise KeyboardInterrupt
        return usual(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(Finder, "predict", stopping)
        assert predict(clip, "--slicer", "none", out="torn") == 130
    finder.seen.clear()
    assert predict(clip, "--slicer", "none", out="torn") == 0
    assert len(finder.seen) == FRAMES - 40  # one segment of 40 was kept
    assert tree(tmp_path / "torn") == tree(tmp_path / "whole")


@pytest.mark.slow
def test_a_real_clip_killed_and_as_its_frames(shared: Path, tmp_path: Path) -> None:
    """A flight over a real picture by the shipped model, in processes of their own."""
    folder = shared / "data/visdrone-mini/VisDrone2019-DET-val/images"
    ground = read_image(folder / "0000364_01765_d_0000782.jpg")
    views = [ground[300:540, 200 + 3 * i : 520 + 3 * i] for i in range(FRAMES)]
    clip = film(tmp_path / "clip.avi", views)
    for index, image in video.frames(video.open_video(clip)):
        write_png(tmp_path / "frames" / f"{index:06d}.png", image)

    def run(code: int, start: list[str], source: Path, out: str, *more: str) -> None:
        options = ["--out", str(tmp_path / out), "--device", "cpu", *more]
        command = [sys.executable, *start, "predict", str(source), *options]
        assert subprocess.run(command, capture_output=True, check=False).returncode == code

    dmnet, every = ["-m", "dmnet"], ("--density-every", "1")
    run(0, dmnet, clip, "whole", *every)
    run(-signal.SIGKILL, [str(KILLER), "3"], clip, "torn", *every)
    assert not (tmp_path / "torn/frames").exists()
    run(0, dmnet, clip, "torn", *every)
    assert tree(tmp_path / "torn") == tree(tmp_path / "whole")
    run(0, dmnet, tmp_path / "frames", "stills", "--save", "csv")
    moving = rows(tmp_path / "whole/frames/clip.csv")
    still = rows(tmp_path / "stills/predictions.csv")
    columns = ("class", "score", "x1", "y1", "x2", "y2")
    assert len(moving) > FRAMES
    assert [[r[c] for c in columns] for r in moving] == [[r[c] for c in columns] for r in still]


def test_a_cut_video_names_the_frames_it_lost(
    predict: Predict, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(clip.read_bytes())
    middle = data.find(b"00dc", len(data) // 2)
    data[middle + 8 : middle + 400] = bytes(392)  # one frame's picture is gone
    clip.write_bytes(data)
    code = predict(clip, "--slicer", "none")
    told = capsys.readouterr().err
    assert code == 1
    assert "1 frames cannot be decoded and were skipped" in told
    shown = video.open_video(tmp_path / "out/pictures/clip.mp4")
    assert shown.frames == FRAMES


def test_what_is_no_video(predict: Predict, tmp_path: Path) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(InputError, match="not a video that can be opened"):
        video.open_video(path)
    write_png(tmp_path / "good.png", draw((50, 50), [(5, 5, 20, 20, 1)]))
    assert predict(path, tmp_path / "good.png") == 1
    assert "pictures/good.jpg" in tree(tmp_path / "out")


def test_tracking_counts_each_object_once(predict: Predict, clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackers", reason="needs the extra viz")
    assert predict(clip, "--track") == 0
    found = rows(tmp_path / "out/frames/clip.csv")
    followed = {(r["class"], r["track"]) for r in found if int(r["track"]) >= 0}
    assert {name for name, _ in followed} == {"pedestrian", "car"}
    assert len(followed) == 2


def test_stream(clip: Path, model: Model) -> None:
    results = list(model.stream(clip, density_every=20))
    assert len(results) == FRAMES
    assert results[7].name == "clip.avi#000007"
    assert results[7].windows == results[0].windows
    assert [len(r.detections) for r in results[:3]] == [2, 2, 2]
    assert len(list(model.stream([frame(0), frame(1)]))) == 2


def test_objects_that_cross_a_line(
    predict: Predict, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The red box goes to the right, over a line that goes down: from its right to its left."""
    pytest.importorskip("trackers", reason="needs the extra viz")
    assert predict(clip, "--line", "50,0,50,119") == 0
    told = capsys.readouterr().out
    objects = rows(tmp_path / "out/frames/clip.objects.csv")
    assert objects == [
        {"class": "pedestrian", "objects": "1", "in": "1", "out": "0"},
        {"class": "car", "objects": "1", "in": "0", "out": "0"},
    ]
    assert "clip.avi: each object once" in told
    shown = dict(video.frames(video.open_video(tmp_path / "out/pictures/clip.mp4")))[0]
    assert shown[5:100, 50].mean() > 200  # the line is drawn
    assert predict(clip, "--line", "50,119,50,0") == 0
    assert rows(tmp_path / "out/frames/clip.objects.csv")[0]["out"] == "1"


@pytest.mark.parametrize("line", ["1,2,3", "5,5,5,5", "a,b,c,d"])
def test_a_line_that_is_none(
    predict: Predict, clip: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(clip, "--line", line) == 2
    assert "line" in capsys.readouterr().err


def test_a_written_video_is_not_held(tmp_path: Path) -> None:
    """Pictures are taken one at a time, and the file comes in pieces."""
    alive = []

    def pictures():
        for index in range(3):
            alive.append(index)
            yield frame(index)

    pieces = video.write_mp4(pictures(), 10, SIZE)
    assert alive == []
    data = b"".join(pieces)
    assert alive == [0, 1, 2]
    assert data[4:8] == b"ftyp"


def test_a_frame_without_pixels_is_a_lost_one(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the campaign fuzz: OpenCV said that it had decoded a frame and gave an empty one."""

    class Empty:
        def __init__(self, *_: object) -> None: ...
        def isOpened(self) -> bool:
            return True

        def grab(self) -> bool:
            return True

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, np.zeros((0, 0, 3), np.uint8)

        def release(self) -> None: ...

    opened = video.open_video(clip)
    monkeypatch.setattr(video.cv2, "VideoCapture", Empty)
    assert list(video.frames(opened, [range(2)])) == [(0, None), (1, None)]


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("IMAGE_PIXELS", 3, "frames of .* exceed"),
        ("VIDEO_FRAMES", 3, "declares .* frames"),
        ("VIDEO_SIDE", 5000, "below 5000 pixels a side"),
    ],
)
def test_what_a_video_declares_has_limits(
    limit: str, value: int, reason: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, limit, value)
    with pytest.raises(InputError, match=reason):
        video.open_video(clip)


def test_frames_beyond_whose_end_a_decoder_writes(tmp_path: Path) -> None:
    """Found by the campaign fuzz, by grammar: uncompressed frames ended the process."""
    path, seen = tmp_path / "a.avi", set()
    for index in (155, 183, 268, 2778, 0, 1, 2, 3, 4, 5):
        path.write_bytes(fuzz.contents("video.avi", 7, index))
        try:
            opened = video.open_video(path)
        except InputError as error:
            seen.add(str(error))
        else:
            assert len(list(video.frames(opened, [range(2)]))) <= 2
    assert "encode it (H.264)" in " ".join(seen)


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile clip.avi\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nclip.avi\n#EXT-X-ENDLIST\n",
    ],
)
def test_play_lists_open_no_other_file(
    text: str, clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = clip.with_name("list.mp4")
    path.write_text(text)
    with pytest.raises(InputError, match="not a video that can be opened"):
        video.open_video(path)
