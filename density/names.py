"""Which density networks there are: a name and where it is made. Nothing is imported here."""

from __future__ import annotations

NETWORKS: dict[str, str] = {
    "mcnn": "dmnet.density.mcnn:MCNN",
    "mobilenet": "dmnet.density.mobilenet:MobileNet",
    "unet": "dmnet.density.unet:UNet",
}
"""Density networks: name -> ``module:function``, called with ``stride`` and settings.

It gives a torch module that maps ``(N, 3, H, W)`` to objects per cell, ``(N, 1, H / s, W / s)``,
with ``stride`` (s, pixels of a side of a cell), ``multiple`` (input sides are multiples of it),
``reach`` (pixels beyond which no input matters to a cell), and a linear last layer ``head``.
"""
