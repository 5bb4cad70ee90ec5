"""Objects followed from frame to frame, by ByteTrack of the library `trackers` (extra viz)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmnet.core.classes import Classes
from dmnet.core.errors import optional
from dmnet.core.records import Detections
from dmnet.pipeline.predict.settings import VideoConfig

UNTRACKED = -1


class Tracker:
    """Numbers of objects over the frames of a video; none where tracking is off.

    Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box",
    ECCV 2022.
    """

    def __init__(
        self, config: VideoConfig, classes: Classes, rate: float, confidence: float
    ) -> None:
        """Start with no object.

        Args:
            config: whether objects are followed, and the line that they may cross.
            classes: of the detections.
            rate: frames a second.
            confidence: lowest score of the detections that will come.

        Raises:
            MissingExtraError: the extra ``viz`` is not installed.
        """
        self.classes = classes
        self._seen: dict[int, int] = {}
        self._tracker: Any = None
        self._line: Any = None
        if config.follows:
            self._tracker = optional("trackers", "viz").ByteTrackTracker(
                frame_rate=rate,
                track_activation_threshold=confidence,
                high_conf_det_threshold=confidence,
            )
            self._library = optional("supervision", "viz")
        if config.line:
            x1, y1, x2, y2 = config.line
            sv = self._library
            anchors = [sv.Position.CENTER]
            self._line = sv.LineZone(sv.Point(x1, y1), sv.Point(x2, y2), anchors)

    def follow(self, found: Detections) -> list[int]:
        """Number of the object of each detection of the next frame, `UNTRACKED` where unsure."""
        numbers = np.full(len(found), UNTRACKED)
        if self._tracker is None:
            return numbers.tolist()
        given = self._library.Detections(
            xyxy=found.boxes.astype(np.float32),
            confidence=found.scores.astype(np.float32),
            class_id=found.labels,
            data={"row": np.arange(len(found))},
        )
        tracked = self._tracker.update(given)
        rows = np.asarray(tracked.data.get("row", []), dtype=np.int64)
        if len(rows):
            numbers[rows] = tracked.tracker_id
        for number, label in zip(numbers.tolist(), found.labels.tolist(), strict=True):
            if number != UNTRACKED:
                self._seen.setdefault(number, label)
        if self._line is not None:
            given.tracker_id = numbers
            self._line.trigger(given[numbers != UNTRACKED])
        return numbers.tolist()

    def table(self) -> list[tuple[str, int, int, int]]:
        """Class, objects (each counted once), and how many crossed the line inwards and outwards.

        Inwards is from right to left for one who stands at the line's start and looks at its end.
        """
        labels = list(self._seen.values())
        into, out = self._crossed("in"), self._crossed("out")
        return [
            (name, labels.count(label), into.get(label, 0), out.get(label, 0))
            for label, name in self.classes.scored.items()
            if label in labels
        ]

    def _crossed(self, way: str) -> dict[int, int]:
        return {} if self._line is None else dict(getattr(self._line, f"{way}_count_per_class"))
