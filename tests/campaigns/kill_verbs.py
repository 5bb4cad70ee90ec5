"""``kill_verbs``: as ``kill``, for the verbs that are no stages: ``predict`` and ``data``.

Predict finds coloured rectangles in drawn pictures, with parts that stand for the networks; data
fetches a small zip from a server on this machine. A try survives as in ``kill``.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dmnet.core.download import Archive
from dmnet.core.images import encode_png
from dmnet.pipeline.predict import run as predicting
from dmnet.pipeline.predict.model import Model
from dmnet.pipeline.tools import data as fetching
from tests.campaigns.kill import SIGNALS, count_into, stop_at
from tests.campaigns.world import STOPPED, forked, place
from tests.pipeline.conftest import tree
from tests.pipeline.predict.conftest import Counter, Finder, draw


@dataclass(frozen=True)
class Verb:
    """A command line that fills a folder, and what stands for the world it meets."""

    name: str
    command: Callable[[Path], list[str]]
    first: Callable[[], object]


def predict_verb(root: Path) -> Verb:
    """Three pictures with three objects each."""
    (root / "pictures").mkdir(parents=True)
    for index in range(3):
        objects = [(10 + 20 * i, 10 + 9 * index, 22 + 20 * i, 20 + 9 * index, 1) for i in range(3)]
        (root / "pictures" / f"{index}.png").write_bytes(encode_png(draw((120, 160), objects)))
    for name in ("detector.pt", "density.pt"):
        (root / name).write_bytes(b"weights")
    opened = lambda files, **how: Model(Finder(), Counter(), files.config, how["confidence"])  # noqa: E731
    models = ["--model", str(root / "detector.pt"), "--density-model", str(root / "density.pt")]
    return Verb(
        "predict",
        lambda folder: ["predict", str(root / "pictures"), *models, "--out", str(folder)],
        lambda: setattr(predicting, "open_model", opened),
    )


@contextmanager
def data_verb(root: Path) -> Iterator[Verb]:
    """A zip of nine files on a server of this machine."""
    name, packed = "VisDrone2019-DET-val", io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for index in range(9):
            archive.writestr(f"{name}/images/{index}.jpg", bytes([index]) * 200_000)
    (root / "site").mkdir(parents=True)
    (root / "site" / f"{name}.zip").write_bytes(packed.getvalue())
    handler = partial(_Quiet, directory=str(root / "site"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    archives = (Archive("val", f"http://127.0.0.1:{server.server_port}/{name}.zip", name, 9),)
    try:
        yield Verb(
            "data",
            lambda folder: ["data", "--split", "val", "--data", str(folder)],
            lambda: setattr(fetching, "VISDRONE", archives),
        )
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


class VerbKiller:
    """Tries on one verb."""

    def __init__(self, root: Path, verb: Verb, seed: int) -> None:
        self.root, self.verb, self.seed = root, verb, seed
        code, said = self.run(root / "calm", count_into(root / "moments"))
        assert code == 0, said
        self.calm = tree(root / "calm")
        self.moments = (root / "moments").stat().st_size

    def run(self, folder: Path, then: Callable[[], object]) -> tuple[int, str]:
        """The verb in a process of its own."""

        def first() -> None:
            self.verb.first()
            then()

        return forked(self.verb.command(folder), first)

    def attempt(self, index: int) -> str:
        """One try: empty if it survived."""
        rng = random.Random(f"{self.seed} {self.verb.name} {index}")
        folder = self.root / "rough"
        shutil.rmtree(folder, ignore_errors=True)
        for _ in range(rng.choice([1, 1, 2])):
            number, at = rng.choice(SIGNALS), rng.randint(1, self.moments)
            code, said = self.run(folder, stop_at(at, number))
            if code not in (STOPPED[number], 0):
                return f"{number.name} at {at}: exit code {code}: {said[-300:]}"
        code, said = self.run(folder, lambda: None)
        if code:
            return f"{number.name} at {at}, then exit code {code}: {said[-300:]}"
        found = tree(folder)
        differ = [n for n in {*found, *self.calm} if found.get(n) != self.calm.get(n)]
        return (
            f"{number.name} at {at}: other files or bytes: {sorted(differ)[:4]}" if differ else ""
        )


def main() -> int:
    """Run the campaign and print one line a verb; exit 1 if anything fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="kills of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="a verb, at most")
    args = parser.parse_args()
    fallen = 0
    with tempfile.TemporaryDirectory(dir=place()) as folder:
        with data_verb(Path(folder, "b")) as data:
            for verb in (data, predict_verb(Path(folder, "a"))):
                root = Path(folder, verb.name)
                root.mkdir()
                killer, tries, start = VerbKiller(root, verb, args.seed), 0, time.monotonic()
                fell: list[str] = []
                while tries < args.n and time.monotonic() - start < args.seconds:
                    fell += [wrong] if (wrong := killer.attempt(tries)) else []
                    tries += 1
                print(f"{verb.name:12} {tries:5} kills, {len(fell)} fell", flush=True)
                for text in fell[:5]:
                    print(f"    {text}", flush=True)
                fallen += len(fell)
    print(f"kill_verbs: seed {args.seed}, {fallen} fell")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
