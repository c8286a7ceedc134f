"""A submission to the challenge as somebody else would write one: no numpy, nothing of ours.  ``MODE`` misbehaves."""

import ast
import os
import struct
import sys
import zipfile
from pathlib import Path

OUTPUTS = Path("/workspace/outputs")
MODE = os.environ.get("MODE", "")


def read(path, name):
    raw = zipfile.ZipFile(path).read(name + ".npy")
    size = struct.unpack("<H", raw[8:10])[0]
    return ast.literal_eval(raw[10 : 10 + size].decode()), raw[10 + size :]


def write(path, shape, data):
    header = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("segs.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)


def threshold(path):
    header, pixels = read(path, "imgs")
    shape = header["shape"]
    if path.name.startswith("2D") and len(shape) == 3:
        pixels, shape = pixels[::3], shape[:2]
    return shape, pixels.translate(bytes(int(value > 127) for value in range(256)))


for case in sorted(Path("/workspace/inputs").iterdir()):
    shape, mask = threshold(case)
    if MODE == "writes-to-root":
        Path("compiled.bin").write_bytes(b"model")
    if MODE == "nothing":
        sys.exit(0)
    if MODE == "wrong-shape":
        shape = shape[::-1]
    if MODE == "fills-the-disk":
        Path(OUTPUTS, "scratch.bin").write_bytes(bytes(8 << 20))
    if MODE == "fills-the-disk-and-goes-on":
        try:
            Path(OUTPUTS, "scratch.bin").write_bytes(bytes(8 << 20))
            write(OUTPUTS / case.name, shape, mask)
        except OSError:
            sys.exit(0)
    write(OUTPUTS / case.name, shape, mask)
    if MODE == "leaves-a-cache":
        blob = OUTPUTS / "cache" / "model.blob"
        if blob.exists():
            sys.exit("a cache of an earlier run is there")
        blob.parent.mkdir()
        blob.write_bytes(bytes(5000))
        Path(OUTPUTS, "efficiency.csv").write_text("case,time\n")
