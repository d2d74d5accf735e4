#!/usr/bin/env bash
# Builds the Debian package and the rock and tries both, the package in a bare Debian: installed, used
# by an ordinary user, removed without a trace. Needs root, debootstrap, dpkg-dev, luarocks, the network.
# usage: [SUITE=trixie] tests/packaging.sh DIR     DIR: a bare system, made when it does not exist
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dir=${1:?"usage: tests/packaging.sh DIR"}

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
# Built in there, so that it depends on what that release has.
# shellcheck disable=SC2016  # the list is expanded in there
tests/bare_root.sh "$dir" '. tests/packages.sh && install_packages "${BUILD_PACKAGES[@]}" dpkg-dev file &&
    cmake -B build/deb -DCMAKE_INSTALL_PREFIX=/usr >/dev/null && cmake --build build/deb -j2 >/dev/null &&
    (cd build/deb && cpack -G DEB)'
files='find /usr /etc -not -path "/usr/share/doc/*" | sort'
tests/bare_root.sh "$dir" "$files >/tmp/before && apt-get install -y ./build/deb/amlua_*.deb &&
    cd / && useradd -m someone && su someone -c 'cd && amlua --version && amlua -e \"print(am.ones({ 2, 3 }):sum():item())\"' &&
    su someone -c 'cd && amlua recipes/generate.lua --help' && userdel -r someone &&
    apt-get purge -y amlua && $files >/tmp/after && diff /tmp/before /tmp/after"
echo "The Debian package installs, runs and goes."

git archive HEAD | tar -x -C "$build"
(cd "$build" && luarocks --lua-version 5.1 --tree "$build/tree" make packaging/amlua-scm-1.rockspec >rock.log 2>&1) || {
    tail -n 30 "$build/rock.log" >&2
    exit 1
}
(cd / && env -i PATH="$PATH" LUA_PATH="$build/tree/share/lua/5.1/?.lua;$build/tree/share/lua/5.1/?/init.lua;;" \
    luajit -e 'assert(require("am").ones({ 2, 3 }):sum():item() == 6)')
echo "The rock builds and loads in stock LuaJIT."
