"""The whole of DMNet on one image at a time, in memory: what `dmnet predict` and `load` run.

``settings`` what can be set; ``scene`` where pixels come from; ``model`` the way from pixels to
detections; ``result`` what comes out; ``named`` the models by name.
"""
