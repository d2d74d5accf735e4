#!/usr/bin/env bash
# Builds the Debian package in a bare Debian, installs it in another, uses it there as an ordinary user
# and removes it without a trace; then builds the rock and loads it. Needs root, debootstrap, luarocks and
# the network.
# usage: [SUITE=trixie] tests/packaging.sh DIR     DIR: an empty or new folder for both systems
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dir=${1:?"usage: tests/packaging.sh DIR"}
mkdir -p "$dir"

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
# Built there, so that it depends on what that release has.
tests/bare_root.sh "$dir/build" true
cp -a "$dir/build" "$dir/install"
# shellcheck disable=SC2016  # the list is expanded in there
tests/bare_root.sh "$dir/build" '. tests/packages.sh && install_packages "${BUILD_PACKAGES[@]}" dpkg-dev file &&
    cmake -B build/deb -DCMAKE_INSTALL_PREFIX=/usr >/dev/null && cmake --build build/deb -j2 >/dev/null &&
    (cd build/deb && cpack -G DEB)'
mkdir -p "$dir/install/srv/amlua/build"
cp "$dir"/build/srv/amlua/build/deb/amlua_*.deb "$dir/install/srv/amlua/build"
files='find /usr /etc -not -path "/usr/share/doc/*" -not -name "*.pyc" | sort'
tests/bare_root.sh "$dir/install" "apt-get update -qq && useradd -m someone && $files >/tmp/before &&
    apt-get install -y -qq --no-install-recommends ./build/amlua_*.deb >/dev/null && cd / &&
    su someone -c 'cd && amlua --version && amlua -e \"print(am.ones({ 2, 3 }):sum():item())\" &&
        amlua recipes/generate.lua --help >/dev/null' &&
    apt-get purge -y -qq --autoremove amlua >/dev/null && $files >/tmp/after && diff /tmp/before /tmp/after"
echo "The Debian package installs, runs and goes."

git archive HEAD | tar -x -C "$build"
(cd "$build" && luarocks --lua-version 5.1 --tree "$build/tree" make packaging/amlua-scm-1.rockspec >rock.log 2>&1) || {
    tail -n 30 "$build/rock.log" >&2
    exit 1
}
(cd / && env -i PATH="$PATH" LUA_PATH="$build/tree/share/lua/5.1/?.lua;$build/tree/share/lua/5.1/?/init.lua;;" \
    luajit -e 'assert(require("am").ones({ 2, 3 }):sum():item() == 6)')
echo "The rock builds and loads in stock LuaJIT."
