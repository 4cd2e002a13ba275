# Installs a system from the disc onto /dev/vda, unattended. Run by the initramfs of the disc; disc.rs puts commands that load modules before.
for i in $(seq 200); do [ -b /dev/sr0 ] && [ -b /dev/vda ] && break; sleep 0.1; done
fail() { echo "INSTALLATION FAILED: $1"; poweroff -f; sleep 60; }
mkdir -p /cd /disk
mount -t iso9660 -o ro /dev/sr0 /cd || fail "no disc"
# One primary partition from sector 2048 to the end, active.
printf 'o\nn\np\n1\n2048\n\na\n1\nw\n' | fdisk -u /dev/vda > /dev/null || fail "no partition table"
for i in $(seq 50); do [ -b /dev/vda1 ] && break; sleep 0.1; done
mke2fs -L system /dev/vda1 > /dev/null || fail "no file system"
mount -t ext4 /dev/vda1 /disk || fail "cannot mount the new file system"
cd /disk && cpio -id < /cd/system.cpio || fail "cannot copy the system"
cd / && umount /disk || fail "cannot unmount the new file system"
dd if=/cd/boot.img of=/dev/vda bs=440 count=1 conv=notrunc 2> /dev/null || fail "no boot record"
dd if=/cd/core.img of=/dev/vda bs=512 seek=1 conv=notrunc 2> /dev/null || fail "no boot loader"
sync
umount /cd
echo "INSTALLATION COMPLETE"
