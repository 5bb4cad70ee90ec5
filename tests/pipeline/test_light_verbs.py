"""No verb imports what it does not use: looking and cutting cost no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("stage", ["train-density", "predict-density", "train-detector", "detect"])
def test_stages_are_planned_without_torch(stage: str) -> None:
    """So that `status` and the check of what is upstream are quick."""
    code = (
        "import sys; from dmnet.pipeline.context import stage_module; "
        f"stage_module({stage!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
