"""The process in which foreign images are decoded: it may be killed, the server may not.

Run as a script, with nothing of the package imported. Reads jobs and writes answers as guarded.py says. A
job `{"op": "size"}` with an image as its payload is answered `{"width": 3, "height": 2}`, as it is to be
looked at; `{"op": "tiles", "sizes": [[w, h], ...], "filter": 1, "boxes": [[x, y, x2, y2], ...],
"whole": [w, h]}` with the tiles of the image resized to one size after the other, each [height, width, 3] in
bytes, and behind them the whole image where that is asked for. What is wrong with an image is
`{"error": "..."}`. A job that passes its CPU time or its memory ends the process without an answer.

Arguments: CPU seconds of one job, bytes that the process may take on top of what it has at the start, and
pixels that an image may have.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import sys
import warnings
from typing import Any, BinaryIO

from PIL import Image, ImageFile, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP")
_TURNED = range(5, 9)
"""Values of the orientation under which width and height change places."""
_ORIENTATION = 0x0112


def opened(data: bytes, most_pixels: int) -> Image.Image:
    """The image, of which the head alone is read. Raises ValueError."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > most_pixels:
        raise ValueError(
            f"it has {width} x {height} pixels, more than {most_pixels}; send it with fewer pixels"
        )
    return image


def size(image: Image.Image) -> dict[str, int]:
    """Width and height as it is to be looked at."""
    width, height = image.size
    if image.getexif().get(_ORIENTATION) in _TURNED:
        width, height = height, width
    return {"width": width, "height": height}


def tiles(image: Image.Image, job: dict[str, Any]) -> bytes:
    """The tiles that the job asks for, one behind the other."""
    shown = ImageOps.exif_transpose(image).convert("RGB")
    for wanted in job["sizes"]:
        shown = shown.resize(tuple(wanted), resample=job["filter"])
    found = [shown.crop(tuple(box)).tobytes() for box in job["boxes"]]
    if job.get("whole"):
        found.append(shown.resize(tuple(job["whole"]), resample=job["filter"]).tobytes())
    return b"".join(found)


def answer(job: dict[str, Any], data: bytes, most_pixels: int) -> tuple[dict[str, Any], bytes]:
    """The answer to one job."""
    try:
        image = opened(data, most_pixels)
        if job["op"] == "size":
            return size(image), b""
        return {}, tiles(image, job)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return {"error": " ".join(str(error).split())[:300] or type(error).__name__}, b""


def serve(source: BinaryIO, sink: BinaryIO, cpu_s: float, memory_bytes: int, most_pixels: int) -> None:
    """Answers jobs until the source ends."""
    with open("/proc/self/statm", "rb") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    for line in source:
        job = json.loads(line)
        data = source.read(job["payload"])
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # its signal ends the process
        head, payload = answer(job, data, most_pixels)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(json.dumps({**head, "payload": len(payload)}).encode() + b"\n")
        sink.write(payload)
        sink.flush()


def main() -> None:
    """Loads the decoders, then serves."""
    warnings.simplefilter("ignore")
    Image.preinit()
    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # held to our own number of pixels
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    serve(sys.stdin.buffer, sys.stdout.buffer, float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))


if __name__ == "__main__":
    main()
