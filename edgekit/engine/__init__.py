"""TensorRT engines: built where they run, known by a key in a sidecar, run through the tensor-name API.

    key.py        which machine and builder an engine belongs to; the sidecar; refusing any other
    build.py      ONNX -> engine, by asking what the installed TensorRT can do
    execution.py  an engine with its buffers
    cuda.py       the few CUDA calls that this needs, through ctypes
    command.py    trtexec command lines, for boards without TensorRT's Python package

Runs on boards: Python 3.8, the standard library, numpy and TensorRT. None of it has been run on a GPU by its authors:
every call is checked against recorded lists of what the versions have (docs/tensorrt.md).
"""
