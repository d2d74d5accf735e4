#!/usr/bin/env python3
"""Write the pictures of this folder, goldens.txt, and the seeds of tests/fuzz/corpus/image.

usage: python tests/c/data/image/make.py

Needs Pillow, torch, torchvision, transformers and scikit-image, whose data the photographs are. Made with
Pillow 13.0.0, torch 2.15.0, torchvision 0.29.2 and transformers 5.24.0, with torch's kernels for AVX2 or AVX-512.

goldens.txt has a line for each fact, its fields separated by spaces. Pixels are those of Pillow's
exif_transpose and convert("RGB") (resizes by torchvision: of that picture as a uint8 tensor), rows of RGB
bytes; hashes are BLAKE2b with 32 bytes.
  picture FILE FORMAT WIDTH HEIGHT CHANNELS ALPHA ORIENTATION HASH OVER   OVER: over white, or "-" without alpha
  lossy FILE FORMAT WIDTH HEIGHT CHANNELS ALPHA ORIENTATION EXPECTED      decoders may differ by 1: a PNG has all
  resize FILE WIDTH HEIGHT FILTER BACKEND HASH
  emit FILE LAYOUT BACKEND RESCALE NORMALIZE HASH                         hash of f32
"""
import hashlib
import io
import os
import struct
import zlib

import numpy as np
import skimage
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional
from transformers import CLIPImageProcessor, CLIPImageProcessorPil, Qwen2VLImageProcessor, Qwen2VLImageProcessorPil

here = os.path.dirname(os.path.abspath(__file__))
corpus = os.path.join(here, "../../../fuzz/corpus/image")
photographs = os.path.join(os.path.dirname(skimage.__file__), "data")
lines = []

FILTERS = {"nearest": (0, InterpolationMode.NEAREST_EXACT), "lanczos": (1, InterpolationMode.LANCZOS),
           "bilinear": (2, InterpolationMode.BILINEAR), "bicubic": (3, InterpolationMode.BICUBIC), "box": (4, None)}


def digest(data):
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def photograph(name, width, mode="RGB"):
    picture = Image.open(os.path.join(photographs, name)).convert(mode)
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


def cut_out(width):
    """A picture with alpha: a cat behind a disc, opaque in the middle."""
    picture = photograph("chelsea.png", width)
    disc = Image.radial_gradient("L").resize(picture.size).point(lambda v: max(0, min(255, 380 - 2 * v)))
    picture.putalpha(disc)
    return picture


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(values, depth, color_type, interlaced=False, transparent=b""):
    """A PNG that Pillow cannot write: values [H, W] or [H, W, C] of 8 or 16 bits."""
    def rows(part):
        return b"".join(b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in part) \
            if part.size else b""
    passes = [values[y::step_y, x::step_x] for x, y, step_x, step_y in ADAM7] if interlaced else [values]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, color_type, 0, 0, int(interlaced))
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) +
            (png_chunk(b"tRNS", transparent) if transparent else b"") +
            png_chunk(b"IDAT", zlib.compress(b"".join(map(rows, passes)), 9)) + png_chunk(b"IEND", b""))


def ycck(data):
    """A CMYK JPEG whose Adobe segment says that it is YCCK."""
    at = data.index(b"Adobe")
    return data[:at + 11] + b"\2" + data[at + 12:]


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def moved(data, width, height, left, top):
    """A GIF87a whose first frame lies elsewhere on a screen of another size."""
    at = 13 + 3 * (2 << (data[10] & 7))
    assert data[at] == ord(",")
    screen, place = struct.pack("<HH", width, height), struct.pack("<HH", left, top)
    return data[:6] + screen + data[10:at + 1] + place + data[at + 5:]


def with_xmp(data, orientation):
    """A JPEG whose orientation only XMP knows."""
    body = b"http://ns.adobe.com/xap/1.0/\0" + \
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def save(name, data):
    with open(os.path.join(here, name), "wb") as file:
        file.write(data)


def rgb_bytes(picture):
    return np.asarray(picture.convert("RGB")).tobytes()


def add(name, data, lossy=False):
    save(name, data)
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    raw = Image.open(io.BytesIO(data))
    alpha = "A" in raw.getbands() or raw.info.get("transparency") is not None
    orientation = raw.getexif().get(0x0112, 1)
    channels = {"CMYK": 4, "RGBA": 4, "RGB": 3, "LA": 2}.get(raw.mode, 1)
    if name == "grey_alpha_16.png":
        channels = 2
    facts = f"{name} {raw.format.lower()} {picture.width} {picture.height} {channels} {int(alpha)} {orientation}"
    if lossy:
        expected = "expected_" + name.replace(".", "_") + ".png"
        save(expected, encoded(picture.convert("RGB"), "PNG", optimize=True))
        lines.append(f"lossy {facts} {expected}")
        return
    over = "-"
    if alpha:
        under = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        over = digest(rgb_bytes(Image.alpha_composite(under, picture.convert("RGBA"))))
    lines.append(f"picture {facts} {digest(rgb_bytes(picture))} {over}")


def pictures():
    coffee = photograph("coffee.png", 132)
    add("ycbcr_420.jpg", encoded(coffee, "JPEG", quality=85, subsampling=2), lossy=True)
    add("ycbcr_422.jpg", encoded(photograph("chelsea.png", 101), "JPEG", quality=80, subsampling=1), lossy=True)
    add("ycbcr_444.jpg", encoded(photograph("astronaut.png", 97), "JPEG", quality=90, subsampling=0), lossy=True)
    add("rgb.jpg", encoded(photograph("ihc.png", 64), "JPEG", keep_rgb=True), lossy=True)
    add("grey.jpg", encoded(photograph("camera.png", 120, "L"), "JPEG"), lossy=True)
    add("progressive.jpg", encoded(photograph("rocket.jpg", 128), "JPEG", progressive=True), lossy=True)
    add("restarts.jpg", encoded(photograph("coffee.png", 61), "JPEG", restart_marker_blocks=2), lossy=True)
    cmyk = encoded(photograph("coffee.png", 90).convert("CMYK"), "JPEG", quality=85)
    add("cmyk.jpg", cmyk, lossy=True)
    add("ycck.jpg", ycck(cmyk), lossy=True)
    text = photograph("text.png", 75)
    for orientation in range(2, 9):
        add(f"exif_{orientation}.jpg", encoded(text, "JPEG", exif=exif(orientation)), lossy=True)
    add("xmp_6.jpg", with_xmp(encoded(text, "JPEG"), 6), lossy=True)
    add("1xn.jpg", encoded(photograph("coins.png", 90).resize((1, 300)), "JPEG"), lossy=True)

    page = photograph("page.png", 140, "L")
    add("grey.png", encoded(page, "PNG", optimize=True))
    add("exif_6.png", encoded(page.resize((47, 31)), "PNG", exif=exif(6)))
    add("one_bit.png", encoded(photograph("horse.png", 150, "L").convert("1"), "PNG", optimize=True))
    add("palette.png", encoded(coffee.quantize(200), "PNG", optimize=True))
    add("palette_4.png", encoded(coffee.quantize(13), "PNG", optimize=True, bits=4))
    cat = cut_out(80)
    add("palette_alpha.png", encoded(cat.quantize(60), "PNG", optimize=True))
    add("alpha.png", encoded(cat, "PNG", optimize=True))
    add("grey_alpha.png", encoded(cut_out(70).convert("LA"), "PNG", optimize=True))
    add("rgb.png", encoded(photograph("astronaut.png", 90), "PNG", optimize=True))
    moon = photograph("moon.png", 60, "L")
    add("grey_color_key.png", png(np.asarray(moon), 8, 0, transparent=struct.pack(">H", moon.getpixel((9, 9)))))
    wide = np.asarray(moon).astype(np.uint16) * 3
    add("grey_16.png", png(wide, 16, 0))
    add("rgb_16.png", png(np.asarray(photograph("ihc.png", 50)).astype(np.uint16) * 257 + 99, 16, 2))
    add("grey_alpha_16.png", png(np.stack([wide * 80, wide * 60 + 7], -1), 16, 4, interlaced=True))
    add("interlaced.png", png(np.asarray(cut_out(61)), 8, 6, interlaced=True))
    add("nx1.png", encoded(photograph("coins.png", 90).resize((500, 1)), "PNG"))
    add("1x1.png", encoded(cat.resize((1, 1)), "PNG"))

    add("lossy.webp", encoded(photograph("chelsea.png", 120), "WEBP", quality=70), lossy=True)
    add("lossy_alpha.webp", encoded(cat, "WEBP", quality=70), lossy=True)
    add("lossless.webp", encoded(coffee.resize((60, 40)), "WEBP", lossless=True))
    add("lossless_alpha.webp", encoded(cat, "WEBP", lossless=True, exact=True))
    add("exif_8.webp", encoded(text.convert("RGB"), "WEBP", lossless=True, exif=exif(8)))
    frames = [cat, ImageOps.mirror(cat)]
    add("animation.webp", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))

    add("palette.gif", encoded(coffee, "GIF"))
    add("interlaced.gif", encoded(photograph("chelsea.png", 70), "GIF", interlace=1))
    add("canvas.gif", moved(encoded(coffee.resize((30, 20)), "GIF"), 50, 21, 5, 7))
    add("transparent.gif", encoded(cat, "GIF"))
    mirrored = ImageOps.mirror(coffee.resize((50, 40)))
    add("animation.gif", encoded(coffee.resize((50, 40)), "GIF", save_all=True, append_images=[mirrored]))


def resizes():
    sizes = {"rgb.png": [(45, 45), (224, 224), (90, 31), (13, 90), (200, 17), (1, 1)],
             "alpha.png": [(33, 70), (130, 20)], "palette.png": [(336, 252), (70, 9), (100, 11)],
             "nx1.png": [(7, 5), (501, 3)], "1x1.png": [(9, 4)], "lossless.webp": [(28, 56), (61, 2)]}
    for name, wanted in sizes.items():
        picture = Image.open(os.path.join(here, name)).convert("RGB")
        tensor = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).contiguous()
        for width, height in wanted:
            for kind, (pillow, torchvision) in FILTERS.items():
                resized = picture.resize((width, height), Image.Resampling(pillow))
                lines.append(f"resize {name} {width} {height} {kind} pil {digest(rgb_bytes(resized))}")
                if torchvision is None or min(*picture.size, width, height) == 1:  # torch 2.15 asserts for 1 x N
                    continue
                resized = functional.resize(tensor, [height, width], interpolation=torchvision, antialias=True)
                lines.append(f"resize {name} {width} {height} {kind} torchvision "
                             f"{digest(resized.permute(1, 2, 0).contiguous().numpy().tobytes())}")


def emits():
    """All values of 8 bits in each channel, as transformers' processors rescale and normalise them."""
    values = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    values[..., 1] = values[..., 1] * 7
    save("values.png", encoded(Image.fromarray(values), "PNG"))
    picture = Image.open(os.path.join(here, "values.png"))
    for backend, clip in (("torchvision", CLIPImageProcessor), ("pil", CLIPImageProcessorPil)):
        for rescale, normalize in ((1, 1), (1, 0), (0, 1)):
            processor = clip(do_resize=False, do_center_crop=False, do_rescale=bool(rescale),
                             do_normalize=bool(normalize))
            out = processor(picture, return_tensors="np")["pixel_values"].astype(np.float32)
            lines.append(f"emit values.png chw {backend} {rescale} {normalize} {digest(out.tobytes())}")
    patched = Image.open(os.path.join(here, "rgb.png")).resize((84, 56))
    save("patches.png", encoded(patched, "PNG", optimize=True))
    for backend, qwen in (("torchvision", Qwen2VLImageProcessor), ("pil", Qwen2VLImageProcessorPil)):
        processor = qwen(do_resize=False, patch_size=14, merge_size=2, temporal_patch_size=2)
        out = processor(patched, return_tensors="np")["pixel_values"].astype(np.float32)
        lines.append(f"emit patches.png patches {backend} 1 1 {digest(out.tobytes())}")


def seeds():
    os.makedirs(corpus, exist_ok=True)
    small, cat = photograph("coffee.png", 17), cut_out(15)
    tags, animation = exif(7), {"save_all": True, "append_images": [ImageOps.mirror(cat)]}
    files = {
        "baseline.jpg": encoded(small, "JPEG", quality=50, subsampling=2, exif=tags),
        "progressive.jpg": encoded(small, "JPEG", quality=50, progressive=True, restart_marker_blocks=1),
        "grey.jpg": encoded(small.convert("L"), "JPEG", quality=50),
        "ycck.jpg": ycck(encoded(small.convert("CMYK"), "JPEG", quality=50)),
        "xmp.jpg": with_xmp(encoded(small, "JPEG", quality=30), 5),
        "palette.png": encoded(cat.quantize(20), "PNG", exif=tags),
        "one_bit.png": encoded(small.convert("1"), "PNG", transparency=1),
        "grey_16.png": png(np.arange(120).reshape(10, 12) * 5, 16, 0, transparent=b"\0\5"),
        "rgb_16.png": png(np.arange(240).reshape(10, 8, 3) * 270, 16, 2, transparent=b"\0\1\0\2\0\3"),
        "interlaced.png": png(np.asarray(cat), 8, 6, interlaced=True),
        "lossy.webp": encoded(cat, "WEBP", quality=40, exif=tags),
        "lossless.webp": encoded(cat, "WEBP", lossless=True),
        "animation.webp": encoded(cat, "WEBP", **animation),
        "interlaced.gif": encoded(small, "GIF", interlace=1),
        "animation.gif": encoded(cat, "GIF", **animation),
    }
    for name, data in files.items():
        with open(os.path.join(corpus, name), "wb") as file:
            file.write(data)


pictures()
resizes()
emits()
seeds()
with open(os.path.join(here, "goldens.txt"), "w") as file:
    file.write("\n".join(lines) + "\n")
