"""What draws each VisDrone category."""

from __future__ import annotations

from collections.abc import Callable

from dmnet.pipeline.scenes.mesh import Mesh
from dmnet.pipeline.scenes.palette import Rng
from dmnet.pipeline.scenes.riders import (
    awning_tricycle,
    bicycle,
    motor,
    pedestrian,
    people,
    rider,
    tricycle,
)
from dmnet.pipeline.scenes.vehicles import bus, car, digger, truck, van

Maker = Callable[[Rng], Mesh]
"""Makes a solid from a generator."""

CAR, VAN, TRUCK, BUS = 4, 5, 6, 9
PEDESTRIAN, PEOPLE, BICYCLE, TRICYCLE, AWNING, MOTOR, OTHERS = 1, 2, 3, 7, 8, 10, 11

MAKERS: dict[int, Maker] = {
    PEDESTRIAN: pedestrian,
    PEOPLE: people,
    BICYCLE: bicycle,
    CAR: car,
    VAN: van,
    TRUCK: truck,
    TRICYCLE: tricycle,
    AWNING: awning_tricycle,
    BUS: bus,
    MOTOR: motor,
    OTHERS: digger,
}
"""Category id to what makes it."""

__all__ = ["MAKERS", "Maker", "rider"]
