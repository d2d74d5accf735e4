"""Compare decoding and resampling with Pillow and torchvision on many pictures: scikit-image's, all of Debian's
tuxpaint-stamps-default, and each of some written anew in every format and mode.

    python tests/parity/images_check.py build/libamlua.so [--resizes 4]

Needs Pillow, torch, torchvision and scikit-image. Every picture is decoded (plain, and over white where it has
alpha) and resized to random sizes by every filter and backend. Prints each picture that differs, then the
counts; status 1 when one differs. Pillow 13.0.0, torchvision 0.29.2: of 1229 pictures none differs, in 26,681
comparisons with --resizes 2.
"""

import argparse
import ctypes
import glob
import io
import os
import sys
import warnings

import numpy as np
import skimage
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

warnings.simplefilter("ignore")
torch.set_num_threads(1)
FILTERS = {0: InterpolationMode.NEAREST_EXACT, 1: InterpolationMode.LANCZOS, 2: InterpolationMode.BILINEAR,
           3: InterpolationMode.BICUBIC, 4: None}
RESIZE, EMIT, PIL, TORCHVISION = 0, 2, 0, 1


class Source(ctypes.Structure):
    _fields_ = [("path", ctypes.c_char_p), ("data", ctypes.c_char_p), ("bytes", ctypes.c_size_t),
                ("name", ctypes.c_char_p), ("max_pixels", ctypes.c_int64), ("background", ctypes.c_int32)]


class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in
                ("format", "width", "height", "channels", "has_alpha", "orientation")]


class Step(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in
                ("kind", "dst", "src", "width", "height", "x", "y", "fill", "filter", "backend", "layout",
                 "frame_width", "frame_height", "patch", "temporal_patch", "merge", "do_rescale", "do_normalize")]
    _fields_ += [("offset", ctypes.c_int64), ("rescale", ctypes.c_double), ("mean", ctypes.c_double * 3),
                 ("std", ctypes.c_double * 3)]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("library")
parser.add_argument("--resizes", type=int, default=4)
args = parser.parse_args()
library = ctypes.CDLL(os.path.abspath(args.library))
library.am_error_message.restype = ctypes.c_char_p
draw = np.random.default_rng(1)


def check(status):
    if status:
        raise RuntimeError(library.am_error_message().decode("utf8", "replace"))


def source_of(data, background=-1):
    return Source(None, data, len(data), None, 0, background)


def run(source, steps, width, height):
    """What the steps leave in slot 0, [H, W, 3]."""
    job, out = ctypes.c_void_p(), np.empty((3, height, width), np.float32)
    steps = (Step * (len(steps) + 1))(*steps, Step(kind=EMIT))
    check(library.am_image_submit(ctypes.byref(job), ctypes.byref(source), steps, ctypes.c_int64(len(steps)),
                                  ctypes.c_int64(out.size)))
    try:
        check(library.am_image_wait(job, out.ctypes.data_as(ctypes.c_void_p)))
    finally:
        library.am_image_release(job)
    return out.astype(np.uint8).transpose(1, 2, 0)


def differs(expected, found):
    if expected.shape != found.shape:
        return f"{found.shape}, not {expected.shape}"
    levels = np.abs(expected.astype(int) - found)
    return f"{int((levels > 0).sum())} bytes by up to {levels.max()}" if levels.any() else None


def compare(name, data):
    """Yields what differs, or None, for each comparison."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    source, info, picture = source_of(data), Info(), image.convert("RGB")
    check(library.am_image_header(ctypes.byref(info), ctypes.byref(source)))
    size = info.width, info.height
    yield f"size {size}, not {image.size}" if size != image.size else None
    yield differs(np.asarray(picture), run(source, [], *size))
    alpha = "A" in image.getbands() or image.info.get("transparency") is not None
    yield f"alpha {info.has_alpha}, not {alpha}" if bool(info.has_alpha) != alpha else None
    if alpha:
        over = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image.convert("RGBA"))
        yield differs(np.asarray(over.convert("RGB")), run(source_of(data, 0xffffff), [], *size))
    tensor = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).contiguous()
    for _ in range(args.resizes):
        width, height = (int(v) for v in np.exp(draw.uniform(np.log(2), np.log(700), 2)))
        for pillow, torchvision in FILTERS.items():
            step = Step(kind=RESIZE, width=width, height=height, filter=pillow, backend=PIL)
            found = differs(np.asarray(picture.resize((width, height), pillow)), run(source, [step], width, height))
            yield found and f"{width} x {height} by {pillow}, pil: {found}"
            if torchvision is None or min(image.size) == 1:  # torch 2.15 asserts for 1 x N
                continue
            resized = functional.resize(tensor, [height, width], interpolation=torchvision, antialias=True)
            step.backend = TORCHVISION
            found = differs(resized.permute(1, 2, 0).numpy(), run(source, [step], width, height))
            yield found and f"{width} x {height} by {pillow}, torchvision: {found}"


def written_anew(path):
    """The picture in other formats and modes: (name, file)."""
    image = Image.open(path).convert("RGBA")
    image.thumbnail((160, 160))
    rgb = image.convert("RGB")

    def file(picture, kind, **options):
        out = io.BytesIO()
        picture.save(out, kind, **options)
        return f"{os.path.basename(path)} as {picture.mode} {kind} {options or ''}", out.getvalue()

    for subsampling in range(3):
        for quality in (30, 75, 95):
            yield file(rgb, "JPEG", quality=quality, subsampling=subsampling)
    yield file(rgb, "JPEG", progressive=True)
    yield file(rgb, "JPEG", keep_rgb=True)
    yield file(rgb.convert("L"), "JPEG")
    yield file(rgb.convert("CMYK"), "JPEG")
    for orientation in range(1, 9):
        tags = Image.Exif()
        tags[0x0112] = orientation
        for kind in ("JPEG", "PNG", "WEBP"):
            yield file(rgb, kind, exif=tags)
    for mode in ("1", "L", "LA", "P", "RGBA"):
        yield file(image.convert(mode), "PNG")
    for colors, bits in ((2, 1), (4, 2), (16, 4), (200, 8)):
        yield file(image.quantize(colors), "PNG", bits=bits)
    yield file(Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 5), "PNG")
    for picture in (image, rgb):
        for lossless in (False, True):
            yield file(picture, "WEBP", lossless=lossless)
        yield file(picture, "WEBP", save_all=True, append_images=[ImageOps.mirror(picture)])
        for interlace in (0, 1):
            yield file(picture, "GIF", interlace=interlace)


def pictures():
    data = os.path.join(os.path.dirname(skimage.__file__), "data")
    paths = [path for kind in ("png", "jpg", "gif") for path in sorted(glob.glob(f"{data}/*.{kind}"))]
    stamps = sorted(glob.glob("/usr/share/tuxpaint/stamps/**/*.png", recursive=True))
    for path in paths + stamps:
        with open(path, "rb") as file:
            yield os.path.basename(path), file.read()
    for path in paths[::8] + stamps[::300]:
        yield from written_anew(path)
    large = Image.open(os.path.join(data, "hubble_deep_field.jpg")).resize((6000, 5232), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    large.save(out, "JPEG", quality=90)
    yield "31 million pixels", out.getvalue()


count = comparisons = failed = 0
for name, data in pictures():
    count += 1
    try:
        for found in compare(name, data):
            comparisons += 1
            if found:
                failed += 1
                print(f"{name}: {found}", flush=True)
    except (RuntimeError, OSError) as error:
        failed += 1
        print(f"{name}: {error}", flush=True)
print(f"{count} pictures, {comparisons} comparisons, {failed} differ")
sys.exit(failed > 0)
