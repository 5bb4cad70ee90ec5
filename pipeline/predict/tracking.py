"""Objects followed from frame to frame, by ByteTrack of the library `trackers` (extra viz)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmnet.core.classes import Classes
from dmnet.core.errors import optional
from dmnet.core.records import Detections

UNTRACKED = -1


class Tracker:
    """Numbers of objects over the frames of a video; none where tracking is off.

    Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box",
    ECCV 2022.
    """

    def __init__(self, wanted: bool, classes: Classes, rate: float, confidence: float) -> None:
        """Start with no object.

        Args:
            wanted: off: every object is untracked.
            classes: of the detections.
            rate: frames a second.
            confidence: lowest score of the detections that will come.

        Raises:
            MissingExtraError: the extra ``viz`` is not installed.
        """
        self.classes = classes
        self._seen: dict[int, int] = {}
        self._tracker: Any = None
        if wanted:
            self._tracker = optional("trackers", "viz").ByteTrackTracker(
                frame_rate=rate,
                track_activation_threshold=confidence,
                high_conf_det_threshold=confidence,
            )
            self._library = optional("supervision", "viz")

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
        return numbers.tolist()

    def unique(self) -> dict[str, int]:
        """Objects by class name, each counted once."""
        labels = list(self._seen.values())
        return {
            name: labels.count(label)
            for label, name in self.classes.scored.items()
            if label in labels
        }
