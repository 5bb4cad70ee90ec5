"""The whole of DMNet in memory and on files: what `dmnet predict` and `dmnet.load` run.

``settings`` what can be set; ``inputs`` what paths name; ``scene`` where pixels come from;
``model`` the way from pixels to detections; ``result`` what comes out; ``named`` the models by
name; ``raster`` and ``video`` read large inputs, ``tiles`` and ``segments`` do them part by part;
``found`` and ``outputs`` are files, ``geo`` those on the map; ``tracking`` follows objects;
``run`` does all.
"""
