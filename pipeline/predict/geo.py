"""Detections on the map: GeoJSON (RFC 7946) and GeoPackage (OGC 12-128r18).

A GeoPackage is an SQLite file; the standard library writes it.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmnet.core.classes import Classes
from dmnet.core.errors import optional
from dmnet.core.records import Detections
from dmnet.pipeline.predict.raster import Raster, corners

WGS84 = 4326
UNKNOWN = 999_000
"""Number of a CRS without EPSG code, in the tables of a GeoPackage."""


def rings(found: Detections, raster: Raster) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outlines of boxes in the raster's CRS and as longitude and latitude, ``(N, 5, 2)`` each."""
    native = raster.to_world(corners(found.boxes).reshape(-1, 2))
    warp = optional("rasterio.warp", "geo")
    x, y = warp.transform(raster.crs, f"EPSG:{WGS84}", native[:, 0], native[:, 1])
    world = np.stack([np.asarray(x), np.asarray(y)], axis=1) if len(native) else native
    return native.reshape(-1, 5, 2), world.reshape(-1, 5, 2)


def geojson(
    found: Detections, outline: NDArray[np.float64], classes: Classes, digits: int, crs: str = ""
) -> bytes:
    """Polygons with class and score.

    Args:
        found: detections.
        outline: their rings ``(N, 5, 2)``; longitude and latitude unless ``crs`` is given.
        classes: of the labels.
        digits: decimals of coordinates.
        crs: name of another CRS, in the member that GeoJSON had for it before RFC 7946.
    """
    head: dict[str, Any] = {"type": "FeatureCollection"}
    if crs:
        head["crs"] = {"type": "name", "properties": {"name": crs}}
    # RFC 7946: outer rings run counter-clockwise; images have y downwards, so rings are turned
    shapes = np.round(outline[:, ::-1] if len(outline) else outline, digits).tolist()
    columns = zip(shapes, found.labels.tolist(), found.scores.tolist(), strict=True)
    features = [
        {
            "type": "Feature",
            "properties": {"class": classes.scored[label], "score": round(score, 6)},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
        for ring, label, score in columns
    ]
    return (json.dumps({**head, "features": features}) + "\n").encode()


def files(found: Detections, raster: Raster, classes: Classes, stem: str) -> dict[str, bytes]:
    """GeoJSON in WGS84 and in the raster's CRS, and a GeoPackage with both layers."""
    native, world = rings(found, raster)
    number, name, wkt = _crs(raster.crs)
    fine = 9 if "GEOGCS" in wkt[:7] or "GEOGCRS" in wkt[:8] else 4
    layers = [("detections", number, native), ("detections_wgs84", WGS84, world)]
    return {
        f"geo/{stem}.geojson": geojson(found, world, classes, 9),
        f"geo/{stem}.native.geojson": geojson(found, native, classes, fine, name),
        f"geo/{stem}.gpkg": b"".join(geopackage(found, layers, {number: (name, wkt)}, classes)),
    }


def _crs(wkt: str) -> tuple[int, str, str]:
    """EPSG number (or `UNKNOWN`), name as a URN, and WKT of a CRS."""
    crs = optional("rasterio.crs", "geo").CRS.from_wkt(wkt)
    number = crs.to_epsg()
    name = f"urn:ogc:def:crs:EPSG::{number}" if number else wkt.split('"')[1]
    return number or UNKNOWN, name, crs.to_wkt()


_TABLES = """
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY,
  organization TEXT NOT NULL, organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL,
  description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL,
  identifier TEXT UNIQUE, description TEXT DEFAULT '', last_change DATETIME NOT NULL,
  min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
  FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL,
  geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL,
  m TINYINT NOT NULL, PRIMARY KEY (table_name, column_name), UNIQUE (table_name),
  FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
  FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
"""

_MOMENT = "1970-01-01T00:00:00.000Z"
"""The time of the last change: a fixed one, so that the same detections give the same bytes."""

Layer = tuple[str, int, NDArray[np.float64]]
"""Table, number of the CRS, rings ``(N, 5, 2)``."""


def geopackage(
    found: Detections, layers: list[Layer], systems: dict[int, tuple[str, str]], classes: Classes
) -> Iterator[bytes]:
    """A GeoPackage with one table of polygons a layer."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.executescript(
            "PRAGMA application_id = 1196444487; PRAGMA user_version = 10300;" + _TABLES
        )
        wgs84 = optional("rasterio.crs", "geo").CRS.from_epsg(WGS84).to_wkt()
        rows = [("Undefined cartesian", -1, "NONE", -1, "undefined"),
                ("Undefined geographic", 0, "NONE", 0, "undefined"),
                ("WGS 84", WGS84, "EPSG", WGS84, wgs84)]  # fmt: skip
        rows += [
            (name, number, "NONE" if number == UNKNOWN else "EPSG", number, wkt)
            for number, (name, wkt) in systems.items()
            if number != WGS84
        ]
        base.executemany("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, NULL)", rows)
        for table, number, outline in layers:
            _layer(base, found, classes, table, number, outline)
        base.commit()
        yield base.serialize()


def _layer(
    base: sqlite3.Connection, found: Detections, classes: Classes, table: str, number: int,
    outline: NDArray[np.float64],
) -> None:  # fmt: skip
    base.execute(
        f"CREATE TABLE {table} (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom POLYGON, "
        "class TEXT, score DOUBLE)"
    )
    flat = outline.reshape(-1, 2)
    low, high = (flat.min(axis=0), flat.max(axis=0)) if len(flat) else (np.zeros(2), np.zeros(2))
    base.execute(
        "INSERT INTO gpkg_contents VALUES (?, 'features', ?, '', ?, ?, ?, ?, ?, ?)",
        (table, table, _MOMENT, *low.tolist(), *high.tolist(), number),
    )
    base.execute(
        "INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'POLYGON', ?, 0, 0)", (table, number)
    )
    names = [classes.scored[label] for label in found.labels.tolist()]
    base.executemany(
        f"INSERT INTO {table} (geom, class, score) VALUES (?, ?, ?)",
        zip((_blob(ring, number) for ring in outline), names, found.scores.tolist(), strict=True),
    )


def _blob(ring: NDArray[np.float64], number: int) -> bytes:
    """A polygon as GeoPackage binary: header, envelope (min x, max x, min y, max y), then WKB."""
    low, high = ring.min(axis=0), ring.max(axis=0)
    envelope = struct.pack("<4d", low[0], high[0], low[1], high[1])
    # flags 3: little-endian, envelope of x and y
    header = b"GP" + struct.pack("<BBi", 0, 3, number) + envelope
    body = struct.pack("<BIII", 1, 3, 1, len(ring)) + np.asarray(ring, "<f8").tobytes()
    return header + body
