#!/bin/busybox sh
# The guest's first process. ttyS0 is the kernel's console, ttyS1 the job's terminal, ttyS2 takes the verdict.
# A guest that dies on the way leaves no verdict, and the host counts that as a failure.
export PATH=/usr/bin HOME=/root TERM=dumb LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
while read -r module option; do
    insmod "/lib/modules/$module" $option || exit 1
done </lib/modules/order
ip link set lo up
ln /opt/vlan-bridge/vlan-bridge /opt/vlan-bridge/vlan-bridge-ipam || exit 1
hostname guest
# Bytes as they are: the host's side does no terminal's work.
stty raw -echo -F /dev/ttyS2
[ -e /interactive ] || stty raw -echo -F /dev/ttyS1
cd /root || exit 1
exec 3>/dev/ttyS1
setsid -c /bin/bash /job </dev/ttyS1 >&3 2>&3
code=$?
# What the job left running would hold its terminal open; the last one to close it waits until all is sent.
kill -9 -1
exec 3>&-
echo "exit $code" >/dev/ttyS2
poweroff -f
