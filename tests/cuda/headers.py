#!/usr/bin/env python3
"""Fetch CUDA's headers from PyPI, for a machine without a toolkit: usage: python headers.py FOLDER

Of wheels of some hundred megabytes only the headers are read (remotezip, from PyPI, asks for ranges of bytes). The
index is pip's: PIP_INDEX_URL, or pypi.org.
"""
import os
import re
import sys
import urllib.parse
import urllib.request

from remotezip import RemoteZip

WHEELS = [("nvidia-cuda-runtime", "13.0.96"), ("nvidia-cuda-crt", "13.0.88"), ("nvidia-cublas", "13.0.2.14"),
          ("nvidia-nccl-cu13", "2.27.7")]


def address(project, version):
    page = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + f"/{project}/"
    text = urllib.request.urlopen(page, timeout=60).read().decode()
    for link in re.findall(r'href="([^"#]+)', text):
        if f"-{version}-" in link and "x86_64" in link and link.endswith(".whl"):
            return urllib.parse.urljoin(page, link)
    sys.exit(f"{page} has no wheel of {version}")


def main(folder):
    for project, version in WHEELS:
        with RemoteZip(address(project, version)) as wheel:
            for name in wheel.namelist():
                inside = re.fullmatch(r"nvidia/\w+/include/([\w./+-]+\.(?:h|hpp|inl))", name)
                if not inside or ".." in name:
                    continue
                path = os.path.join(folder, inside.group(1))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as out:
                    out.write(wheel.read(name))


main(sys.argv[1])
