"""No verb imports what it does not use: looking and cutting cost no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.images import encode_jpeg

CODE = """
import sys
from dmnet.pipeline.cli import main
code = main(sys.argv[1:])
assert code == 0, code
heavy = sorted({"torch", "torchvision", "mmdet", "mmengine", "ray", "onnxruntime"} & set(sys.modules))
assert not heavy, heavy
"""  # noqa: E501


def run(verb: str, root: Path, *options: str) -> None:
    places = ["--data", str(root / "data"), "--artifacts", str(root / "artifacts")]
    if verb == "status":
        places = places[2:]
    done = subprocess.run(
        [sys.executable, "-c", CODE, verb, *places, *options], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_verbs_that_need_no_torch(data: Path, tmp_path: Path) -> None:
    cut = ["--crop.threshold", "0.3", "--crop.min-side", "60"]
    for verb in ("density", "crop", "convert", "status"):
        run(verb, tmp_path, *(cut if verb == "crop" else []))
    found = tmp_path / "found"
    found.mkdir()
    (found / "results_images.json").write_text("[]")
    plain = ["--fuse-eval.pictures", "0", "--fuse-eval.bootstrap", "0"]
    run("fuse-eval", tmp_path, "--detections", str(found), *plain)


PREDICT = """
import sys, dmnet
from dmnet.pipeline.cli import main
code = main(["predict", *sys.argv[1:], "--device", "cpu"])
assert code == 0, code
seen = dmnet.load("visdrone", device="cpu")(sys.argv[1])
assert seen.density is not None
slow = sorted({"torch", "torchvision", "scipy", "matplotlib", "pandas"} & set(sys.modules))
assert not slow, slow
"""


def test_predicting_by_a_named_model_on_a_cpu_needs_no_torch(tmp_path: Path) -> None:
    picture, out = tmp_path / "a.jpg", tmp_path / "out"
    noise = np.random.default_rng(0).integers(0, 256, (180, 240, 3), np.uint8)
    picture.write_bytes(encode_jpeg(noise))
    command = [sys.executable, "-c", PREDICT, str(picture), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert (out / "pictures" / "a.jpg").is_file() and (out / "found" / "a.h5").is_file()


@pytest.mark.parametrize("stage", ["train-density", "predict-density", "train-detector", "detect"])
def test_stages_are_planned_without_torch(stage: str) -> None:
    """So that `status` and the check of what is upstream are quick."""
    code = (
        "import sys; from dmnet.pipeline.context import stage_module; "
        f"stage_module({stage!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("verb", [["--help"], ["density", "--help"]])
def test_a_closed_pipe_prints_no_traceback(verb: list[str]) -> None:
    """As with ``dmnet --help | head -0``."""
    command = [sys.executable, "-m", "dmnet", *verb]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_progress_leaves_no_carriage_returns_in_files(data: Path, tmp_path: Path) -> None:
    places = ["--data", str(data), "--artifacts", str(tmp_path / "artifacts")]
    with (tmp_path / "said").open("wb") as said:
        subprocess.run([sys.executable, "-m", "dmnet", "density", *places], stderr=said, check=True)
    text = (tmp_path / "said").read_bytes()
    assert b"3 done" in text and b"\r" not in text


@pytest.mark.parametrize(
    ("target", "said"), [("evaluate", "GT="), ("export", "WEIGHTS="), ("quantise", "IMAGES=")]
)
def test_a_bare_target_says_what_is_missing(target: str, said: str) -> None:
    root = Path(__file__).resolve().parents[2]
    words = ["make", "-n", "-o", ".venv/.ready", target]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"*** {target}: " in done.stderr and said in done.stderr
