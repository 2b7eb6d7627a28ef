#!/bin/sh
# exim.sh DIRECTORY PACKAGE... - runs Exim in the foreground with DIRECTORY/exim.conf, as if PACKAGE... were installed.
#
# Debian's Exim and Postfix cannot be installed together. So Exim's files lie on a copy-on-write view of this machine
# that only this process and its children see: to be called in a mount namespace of its own (`unshare --mount`), and
# gone with it. The network is the machine's. Without any PACKAGE it only tries whether such a view can be made.
set -eu

directory=$1
shift
layer=$directory/layer
root=$layer/root

# overlayfs wants its upper layer outside of the lower one, which is the whole machine: hence a file system of its own.
mount -t tmpfs -o mode=755 tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" overlay "$root"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mkdir -p "$root$directory"
mount --bind "$directory" "$root$directory"
[ $# -gt 0 ] || exit 0

for package; do
    # /lib and /bin are links on the machine and directories in some packages.
    dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --directory "$root"
done

# What the packages' own scripts would do. The user's name is compiled into Exim.
grep -q '^Debian-exim:' "$root/etc/group" || echo 'Debian-exim:x:65533:' >>"$root/etc/group"
grep -q '^Debian-exim:' "$root/etc/passwd" ||
    echo 'Debian-exim:x:65533:65533::/var/spool/exim4:/usr/sbin/nologin' >>"$root/etc/passwd"
# Exim keeps its privileges, without which it cannot deliver, only with a configuration named here.
echo "$directory/exim.conf" >>"$root/etc/exim4/trusted_configs"
chroot "$root" chown -R Debian-exim:Debian-exim "$directory/spool" "$directory/mail" "$directory/tls" "$directory/logs"

exec chroot "$root" /usr/sbin/exim4 -C "$directory/exim.conf" -bdf -q1m
