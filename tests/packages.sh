#!/usr/bin/env bash
# The Debian packages that amlua needs, by purpose, and a function that installs the missing ones.
# Sourced by tests/run.sh and examples/quickstart.sh; it does nothing when run by itself.

# curl stands for libcurl4, which is loaded when the network is needed: its package has another name in
# Debian trixie.
# shellcheck disable=SC2034  # the lists are read by the scripts that source this file
BUILD_PACKAGES=(gcc libc6-dev cmake make pkg-config libluajit-5.1-dev libdnnl-dev libpcre2-dev
    libutf8proc-dev zlib1g-dev libzstd-dev libsnappy-dev libjpeg62-turbo-dev
    libspng-dev libwebp-dev libgif-dev libedit-dev lua-yaml lua-cjson curl)
# shellcheck disable=SC2034
TEST_PACKAGES=(luajit check lua-busted lua-check clang-format clang-tidy shellcheck clang zstd
    libclang-rt-dev libomp-dev libopenmpi-dev openmpi-bin g++ libgloo-dev)
# shellcheck disable=SC2034  # a Slurm of the tests' own, and two hosts
CLUSTER_PACKAGES=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge iproute2)
# shellcheck disable=SC2034  # what examples/smollm2.sh uses to fetch the model
DOWNLOAD_PACKAGES=(ca-certificates curl python3 python3-pip unzip)

# install_packages NAME...: installs those of the Debian packages that are not there yet.
# Quick and without network when nothing is missing; needs root or sudo otherwise.
install_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f='${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed ||
            missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return 0

    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "These Debian packages are missing: ${missing[*]}" >&2
            echo "Install them as root (apt-get install ${missing[*]}) and run this again." >&2
            return 1
        fi
        sudo=(sudo)
    fi
    echo "Installing ${missing[*]}" >&2
    "${sudo[@]}" apt-get update -qq >&2 &&
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 \
            --no-install-recommends "${missing[@]}" >/dev/null
}
