#!/bin/sh
# Makes a Debian package of what `make install` has put below a directory. Its name is not supervisor, for that
# is another program's (supervisord) in Debian, and apt would put the one in the place of the other.
set -eu
root=$(cd "$1" && pwd)
here=$(dirname "$0")
package=heartbeat-supervisor
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Of the program and not of this machine, for it may be for another.
case $(LC_ALL=C readelf -h "$root/usr/bin/supervisor") in
    *ELF64*X86-64*) architecture=amd64 ;;
    *ELF64*AArch64*) architecture=arm64 ;;
    *ELF32*ARM*) architecture=armhf ;;
    *ELF32*80386*) architecture=i386 ;;
    *ELF64*RISC-V*) architecture=riscv64 ;;
    *) echo "$0: which architecture is $root/usr/bin/supervisor for?" >&2; exit 1 ;;
esac
mkdir -p "$root/DEBIAN" "$root/usr/share/doc/$package"
# What it is linked with; nothing, where it is static.
program=$root/usr/bin/supervisor
depends=
if LC_ALL=C readelf -d "$program" | grep -q NEEDED; then
    mkdir -p "$root.control/debian"
    touch "$root.control/debian/control"
    depends=$(cd "$root.control" && dpkg-shlibdeps -O --ignore-missing-info "$program" 2>"$root.said" |
        sed -n 's/^shlibs:Depends=//p')
    [ -n "$depends" ] || {
        cat "$root.said" >&2
        echo "$0: what it depends on is not known here: take a static one (musl), or build on $architecture" >&2
        exit 1
    }
fi
mkdir -p "$root/usr/share/lintian/overrides"
{
    # Guarded by whether systemd runs; deb-systemd-invoke stops no instances of a template.
    echo "$package: maintainer-script-calls-systemctl *"
    [ -n "$depends" ] || echo "$package: statically-linked-binary [usr/bin/supervisor]"
} >"$root/usr/share/lintian/overrides/$package"
install -m 644 "$here/copyright" README.md "$root/usr/share/doc/$package/"
gzip -9nc scripts/documents/changelog >"$root/usr/share/doc/$package/changelog.gz"
cp -r scripts/recipes "$root/usr/share/doc/$package/examples"
find "$root/usr/share/doc/$package/examples" -type f -exec sed -i 's|/usr/local/bin|/usr/bin|g' {} +
# (supervisord's package has a supervisor.1, too: each is found by `man supervisor`, this one also as 1heartbeat.)
mv "$root/usr/share/man/man1/supervisor.1" "$root/usr/share/man/man1/supervisor.1heartbeat"
gzip -9n "$root"/usr/share/man/man1/*.1*
# zsh looks there in Debian.
mv "$root/usr/share/zsh/site-functions" "$root/usr/share/zsh/vendor-completions"
find "$root" -type d -exec chmod 755 {} +
{
    cat <<EOF
Package: $package
Version: $version
Architecture: $architecture
Maintainer: $(sed -n 's/^ -- \(.*>\)  .*/\1/p' scripts/documents/changelog | head -n 1)
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Section: admin
Priority: optional
EOF
    [ -z "$depends" ] || echo "Depends: $depends"
    cat <<EOF
Description: keeps a command up: restarts it when it fails, and when it hangs
 Put it in front of a command that has to stay up. The command touches a file
 now and then, or speaks the protocol of sd_notify(3); silence longer than a
 deadline means that it hangs. It sleeps until something happens, runs as PID 1
 of a container and by the hundred on one machine.
 .
 supervisor-fleet starts one instance for each line of a file.
EOF
} >"$root/DEBIAN/control"
install -m 755 "$here/prerm" "$here/postinst" "$here/postrm" "$root/DEBIAN/"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
dpkg-deb --root-owner-group --build "$root" "${package}_${version}_$architecture.deb"
