# Gives a container runtime a file system, process ids and control groups of its own, in the network namespace that it is
# started in, and takes all of it back when stdin ends. Whoever wants to be in there follows the process whose id, as seen
# from outside, is printed once all is ready, and executes /join.
# Arguments: an empty folder, the folder of the runtime's unpacked packages, a name for the control groups.
set -e
export packages=$2 name=$3
mount -t tmpfs tmpfs "$1"
cd "$1"

# Files: the packages over the machine's programs, and nothing of the machine's state.
mkdir -p dev etc opt proc root run/netns sys tmp usr var/lib/cni var/lib/containerd var/lib/containers var/log var/tmp
chmod 1777 tmp var/tmp
ln -s usr/bin usr/lib usr/lib64 usr/sbin .
for part in etc usr; do
    mkdir -p .own/$part .work/$part
    mount -t overlay overlay -o "lowerdir=$packages/$part:/$part,upperdir=.own/$part,workdir=.work/$part" $part
done
mkdir dev/{net,pts,shm}
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 fuse:10:229 net/tun:10:200; do
    IFS=: read -r file major minor <<<"$device"
    mknod -m 666 "dev/$file" c "$major" "$minor"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t sysfs sysfs sys

# Control groups, version 2. Where the machine has its controllers in version 1, that, as runtimes do then.
mount_groups() {
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    if grep -qw cpu sys/fs/cgroup/cgroup.controllers; then
        hierarchies=sys/fs/cgroup
        return
    fi
    umount sys/fs/cgroup
    mount -t tmpfs tmpfs sys/fs/cgroup
    hierarchies=
    while IFS=: read -r _ controllers _; do
        case $controllers in
        "" | name=*) continue ;;
        esac
        mkdir "sys/fs/cgroup/$controllers"
        mount -t cgroup -o "$controllers" cgroup "sys/fs/cgroup/$controllers"
        hierarchies+=" sys/fs/cgroup/$controllers"
    done </proc/self/cgroup
}
mount_groups
for hierarchy in $hierarchies; do
    if [ -e $hierarchy/cgroup.subtree_control ]; then
        echo "+cpu +memory +pids" >$hierarchy/cgroup.subtree_control
    fi
    mkdir "$hierarchy/$name"
    # Version 1 gives a new group no processors.
    for file in cpuset.cpus cpuset.mems; do
        if [ -e $hierarchy/$file ]; then cat $hierarchy/$file >"$hierarchy/$name/$file"; fi
    done
done

# The first of the process ids: with it everything ends that a runtime leaves running.
first() {
    set -e
    read -r outside _ </proc/self/stat
    for hierarchy in $hierarchies; do echo 0 >"$hierarchy/$name/cgroup.procs"; done
    mount -t proc proc proc
    exec unshare --cgroup bash -c "second $outside"
}
# Its control groups are the roots now.
second() {
    set -e
    umount $hierarchies
    # Version 1 has a folder for each hierarchy.
    if [ "$hierarchies" != sys/fs/cgroup ]; then umount sys/fs/cgroup; fi
    mount_groups
    {
        echo '#!/bin/bash'
        echo '# Joins the control groups, which do not come with their namespace, and executes what the arguments say.'
        for hierarchy in $hierarchies; do
            # A group of version 2 that has groups below it may have no processes.
            mkdir -p $hierarchy/processes
            for file in cpuset.cpus cpuset.mems; do
                if [ -e $hierarchy/$file ]; then cat $hierarchy/$file >$hierarchy/processes/$file; fi
            done
            echo "echo 0 >/$hierarchy/processes/cgroup.procs"
        done
        echo 'exec "$@"'
    } >join
    chmod 755 join
    # On top of the root, not below it: who is in a changed root may not make user namespaces.
    mount --move . /
    exec chroot . /join /bin/bash -c "echo $1; read -r"
}
export hierarchies
export -f first second mount_groups
unshare --mount --pid --fork bash -c first || true
for hierarchy in $hierarchies; do find "$hierarchy/$name" -depth -type d -exec rmdir {} +; done
