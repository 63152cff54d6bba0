#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs first in the guest: guest.sh SHARED=PATH... -- COMMAND...
#
# The guest's root is the host's, over 9p without a cache: each page of a program is fetched
# again by every process. The folders that matter are shared a second time, as SHARED; mount
# them with a cache over their PATH, and let writes go to memory.
set -eu

cached() {
	tag=$(awk -v at="$1" '$2 == at { print $1 }' /proc/mounts)
	umount "$1"
	mount -t 9p -o ro,trans=virtio,version=9p2000.L,access=any,msize=512000,cache=loose "$tag" "$1"
	writes=/run/fourwave/writes/$(basename "$1")
	mkdir -p "$writes/upper" "$writes/work"
	# The tests may run for an hour, the repository changes meanwhile: take it as it is now.
	[ ! -e "$1/pyproject.toml" ] || copy_sources "$1" "$writes/upper"
	mount -t overlay -o "lowerdir=$1,upperdir=$writes/upper,workdir=$writes/work" overlay "$2"
}

copy_sources() {
	tar -C "$1" --exclude='./.*' --exclude=./build -c . | tar -C "$2" -x
}

mkdir -p /run/fourwave/writes /run/fourwave/modules
mount -t tmpfs writes /run/fourwave/writes
mount --bind /usr/lib/modules /run/fourwave/modules # virtme-ng's link to the kernel's modules
while [ "$1" != -- ]; do
	cached "${1%%=*}" "${1#*=}"
	shift
done
shift
mkdir -p /usr/lib/modules
mount --bind /run/fourwave/modules /usr/lib/modules
# What the networks of the tests are made of: a namespace cannot ask for modules.
modprobe --all tun veth bridge sch_netem || :
ip link set lo up
exec "$@"
