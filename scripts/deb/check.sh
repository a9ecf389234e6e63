#!/bin/sh
# Installs the package by dpkg into a root of its own, runs it there, and removes it while it runs: nothing of
# it may be left; and again as under systemd. The root has busybox, and the libraries of both.
# Wants to be root, and lintian.
set -eu
package=$(ls heartbeat-supervisor_*_"$(dpkg --print-architecture)".deb)
missing=
command -v lintian >/dev/null || missing="lintian is not installed"
command -v busybox >/dev/null || missing="busybox is not installed"
[ "$(id -u)" = 0 ] || missing="only root may"
if [ -n "$missing" ]; then
    echo "$0: skipped: $missing" >&2
    [ -z "${CI-}" ] || exit 1
    exit 0
fi

fail() {
    echo "$0: $*" >&2
    exit 1
}

# What is started here ends with this, whatever happens.
[ "${1-}" = inside ] || exec unshare --pid --fork --kill-child --mount-proc "$0" inside

lintian --allow-root --fail-on error,warning "$package"

dpkg-deb --contents "$package" | grep -q 'man1/supervisor\.1\.gz' && fail "Debian's supervisor has that page, too"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
everything() {
    (cd "$root" && find . -path ./var/lib/dpkg -prune -o -path './run/*' -prune -o -print | sort)
}
mkdir -p "$root/bin" "$root/dev" "$root/etc" "$root/run" "$root/tmp" \
    "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/log/supervisor-fleet"
touch "$root/var/lib/dpkg/status"
mknod -m 666 "$root/dev/null" c 1 3
busybox=$(command -v busybox)
for program in "$busybox" supervisor; do
    ldd "$program" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
        install -D "$library" "$root$library"
    done
done
install "$busybox" "$root/bin/busybox"
for tool in sh awk sed grep dirname sleep mkdir cat rm; do
    ln -s busybox "$root/bin/$tool"
done
echo 'web sleep 1000' >"$root/etc/supervisor.fleet"
touch "$root/var/log/supervisor-fleet/web.log" "$root/var/log/supervisor-fleet/web.out"
everything >"$root/tmp/before"
# (The libraries that it depends on are there, but no package says so.)
dpkg="dpkg --root=$root --log=/dev/null --force-depends"

$dpkg --install "$package" >/dev/null 2>&1 || $dpkg --install "$package"
chroot "$root" supervisor --version
chroot "$root" supervisor-fleet start
chroot "$root" supervisor --status web >/dev/null || fail "it does not run"
# No fault in the file keeps it from being stopped.
echo "web --timeot 'x" >"$root/etc/supervisor.fleet"
$dpkg --remove heartbeat-supervisor >/dev/null
[ ! -e "$root/run/supervisor/web.sock" ] || fail "it still runs after it was removed"
everything >"$root/tmp/after"
sed -i '/^\.\/tmp\/after$/d' "$root/tmp/after"
sed -i '/^\.\/tmp\/before$/d' "$root/tmp/before" "$root/tmp/after"
diff "$root/tmp/before" "$root/tmp/after" || fail "not all of it was removed"

# What stands in for systemctl only notes what it is asked for.
wants=$root/etc/systemd/system/multi-user.target.wants
mkdir -p "$root/run/systemd/system" "$wants"
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$*" >>/run/asked\n' >"$root/bin/systemctl"
chmod +x "$root/bin/systemctl"
$dpkg --install "$package" >/dev/null 2>&1
for unit in supervisor-fleet supervisor@web supervisor; do
    ln -s "/usr/lib/systemd/system/$unit.service" "$wants"
done
echo "web sh -c 'faulty" >"$root/etc/supervisor.fleet"
$dpkg --remove heartbeat-supervisor >/dev/null
diff - "$root/run/asked" <<EOF || fail "systemd was asked for something else"
daemon-reload
stop supervisor@*.service supervisor-fleet.service
daemon-reload
reset-failed supervisor@*.service supervisor-fleet.service
EOF
[ "$(ls "$wants")" = supervisor.service ] || fail "only Debian's supervisor is to keep its link"
echo "deb: lintian finds nothing; installed, run, removed, also as under systemd"
