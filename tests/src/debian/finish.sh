# Makes a bootable system of a fresh Debian in the folder $1, and writes to the folder $out: file system, boot.img, core.img.
# Run by mmdebstrap on the host, as what is root there; image.rs puts the values of out, uuid, size, machine and settings before this.
set -eu
root=$1

echo debian > "$root/etc/hostname"
printf '127.0.0.1 localhost debian\n::1 localhost\n' > "$root/etc/hosts"
echo "UUID=$uuid / ext4 errors=remount-ro 0 1" > "$root/etc/fstab"
echo "$machine" > "$root/etc/machine-id"
# Root logs in without a password, on the console alone: nothing listens on the network.
sed -i 's/^root:[^:]*:/root::/' "$root/etc/shadow"

printf '[Match]\nType=ether\n\n[Network]\nDHCP=yes\n' > "$root/etc/systemd/network/20-wired.network"
chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved
# The first minutes belong to who logs in: nobody waits for the network, and apt is not locked by its own timers.
chroot "$root" systemctl --quiet disable systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer
# A busy host is no reason to give a device up.
mkdir -p "$root/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultDeviceTimeoutSec=10min\nDefaultTimeoutStartSec=10min\n' > "$root/etc/systemd/system.conf.d/patience.conf"
rm -f "$root/etc/resolv.conf"
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
printf %s "$settings" > "$root/etc/apt/apt.conf.d/90host"

# What update-grub makes its configuration of in the running system, and one that says the same: here are no devices to ask.
cat > "$root/etc/default/grub" <<END
GRUB_TIMEOUT=1
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_TERMINAL="serial console"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
END
mkdir -p "$root/boot/grub/i386-pc"
cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst "$root/boot/grub/i386-pc"
cat > "$root/boot/grub/grub.cfg" <<END
set timeout=1
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
menuentry 'Debian GNU/Linux' {
    linux /vmlinuz root=UUID=$uuid ro console=tty0 console=ttyS0,115200 quiet
    initrd /initrd.img
}
menuentry 'Debian GNU/Linux, with all messages' {
    linux /vmlinuz root=UUID=$uuid ro console=tty0 console=ttyS0,115200
    initrd /initrd.img
}
END
chroot "$root" grub-mkimage -O i386-pc -p '(,msdos1)/boot/grub' -o /boot/grub/i386-pc/core.img \
    biosdisk part_msdos ext2 normal
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/grub/i386-pc/core.img" "$out"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*_*

# What is mounted in the folder is no part of the system: the same folder again, without.
bare=$out/bare
mkdir "$bare"
if ! mount --bind "$root" "$bare"; then
    rmdir "$bare"
    bare=$root # nothing is mounted there either
fi
truncate -s "$size" "$out/system"
code=0
mke2fs -q -F -t ext4 -L debian -U "$uuid" -E lazy_itable_init=0,lazy_journal_init=0 -d "$bare" "$out/system" || code=$?
if [ "$bare" != "$root" ]; then
    umount "$bare"
    rmdir "$bare"
fi
chmod a+r "$out"/*
exit $code
