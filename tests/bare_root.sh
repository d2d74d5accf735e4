#!/usr/bin/env bash
# Runs the README's two commands in a Debian that has had none of it, each twice: the second time
# shows what running them again costs. Needs root, debootstrap and the network.
#
# usage: [SUITE=trixie] tests/bare_root.sh DIR [COMMAND...]
#   SUITE     the release of Debian; bookworm when not given
#   DIR       the bare system: made by debootstrap when it does not exist, used as it is otherwise.
#             To start from bare again, remove it, or copy a pristine one with cp -a beforehand.
#   COMMAND   what to run in the project's root there, instead of the two commands
#
# The host's certificates, name servers, apt and pip settings and proxies go along, since a
# machine behind a proxy has no other way out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -ge 1 ] || { sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "${BASH_SOURCE[0]}" >&2 && exit 2; }
# In a mount namespace of its own, so that no end of this script leaves a mount in DIR.
[ "${BARE_ROOT_MOUNTS:-}" = own ] || exec env BARE_ROOT_MOUNTS=own unshare --mount "$PWD/tests/bare_root.sh" "$@"
dir=$1
shift

[ -e "$dir/etc/debian_version" ] || debootstrap --variant=minbase "${SUITE:-bookworm}" "$dir"
dir=$(cd "$dir" && pwd)

mkdir -p "$dir/usr/local/share/ca-certificates"
for certificate in /usr/local/share/ca-certificates/*.crt; do
    [ ! -f "$certificate" ] || cp "$certificate" "$dir/usr/local/share/ca-certificates/"
done
cp -L /etc/resolv.conf "$dir/etc/resolv.conf"
echo "127.0.0.1 localhost $(hostname)" >"$dir/etc/hosts" # or mpirun asks the network for it, five seconds each time
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$dir/etc/pip.conf"
apt-config dump | grep -Ei '^Acquire::(.*proxy|Check-)' >"$dir/etc/apt/apt.conf.d/90host" || true

# The project as git knows it, new files included; builds and caches stay behind. What the last
# run built there stays too, so that a second call is a second run.
mkdir -p "$dir/srv/amlua"
git ls-files -z --cached --others --exclude-standard |
    tar --create --null --files-from=- --ignore-failed-read 2>/dev/null |
    tar --extract --directory "$dir/srv/amlua"

mkdir -p "$dir/dev/shm" "$dir/dev/pts"
mount -t proc proc "$dir/proc"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$dir/dev/pts"
mount -t tmpfs tmpfs "$dir/dev/shm"
mkdir -p "$dir/sys"
mount --rbind /sys "$dir/sys" && mount --make-rslave "$dir/sys" # Open MPI asks it where cores are

environment=(HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)
while IFS= read -r variable; do
    environment+=("$variable")
done < <(env | grep -E '^(PIP_[A-Z_]*|(https?|no|all)_proxy|(HTTPS?|NO|ALL)_PROXY)=' |
    grep -v '^PIP_FIND_LINKS=') # a folder of the host

inside() { # inside COMMAND: in the project's root of the bare system
    local started=$SECONDS rc=0
    echo "==== $1"
    chroot "$dir" env -i "${environment[@]}" bash -c "cd /srv/amlua && $1" || rc=$?
    echo "==== $1: exit status $rc after $((SECONDS - started)) s"
    return "$rc"
}

if [ $# -gt 0 ]; then
    inside "$*"
else
    inside examples/quickstart.sh
    inside examples/quickstart.sh
    inside tests/run.sh
    inside tests/run.sh
fi
