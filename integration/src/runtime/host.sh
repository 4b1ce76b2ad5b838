# Gives a container runtime a file system, process ids and control groups of its own, in the network namespace that it is
# started in, and takes all of it back when stdin ends. Whoever wants to be in there follows the process whose id, as seen
# from outside, is printed once all is ready.
# Arguments: an empty folder, the folder of the runtime's unpacked packages, a name for the control group.
set -e
root=$1 packages=$2 group=$3
cd "$root"
mount -t tmpfs tmpfs .
cd "$root"
mkdir -p dev etc opt proc root run/netns sys tmp usr var/lib/cni var/lib/containerd var/lib/containers var/tmp
ln -s usr/bin usr/lib usr/lib64 usr/sbin .
for part in etc usr; do
    mkdir -p .own/$part .work/$part
    mount -t overlay overlay -o "lowerdir=$packages/$part:/$part,upperdir=.own/$part,workdir=.work/$part" $part
done
mount --rbind /dev dev
mount -t sysfs sysfs sys
# Without the controllers where this machine has them elsewhere: who asks for no limits does not miss them.
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir "sys/fs/cgroup/$group"

# The first process of the process ids: with it everything ends that a runtime leaves running.
first() {
    read -r outside _ </proc/self/stat
    echo 0 >"sys/fs/cgroup/$1/cgroup.procs"
    mount -t proc proc proc
    exec unshare --cgroup chroot . /bin/bash -c 'mount -t cgroup2 cgroup2 /sys/fs/cgroup; echo "$0"; read -r' "$outside"
}
export -f first
unshare --mount --pid --fork bash -c 'first "$0"' "$group" || true
find "sys/fs/cgroup/$group" -depth -type d -exec rmdir {} +
