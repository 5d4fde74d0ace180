"""edgekit: a pretrained vision model, made to run in real time on an edge device, and measured there."""

__version__ = "0.1.0"
