#!/usr/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The first process of a guest that has nothing but what lies in its memory (tests/vm/foreign.py).
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs run /run
busybox mount -t tmpfs tmp /tmp
busybox mount -t securityfs security /sys/kernel/security
busybox mount -t tracefs tracing /sys/kernel/tracing
busybox mount -t cgroup2 cgroup /sys/fs/cgroup
busybox dmesg -n 1 # the console is for results
ldconfig
modprobe --all tun veth bridge sch_netem
ip link set lo up
mkdir /run/results
cp /plan.json /run/results
cd /fourwave || exit
export PYTHONPATH=/fourwave:/opt/site PYTHONDONTWRITEBYTECODE=1
export FOURWAVE_EMULATED=1 FOURWAVE_LOADER_TIMEOUT_S=300
python3 -m tests.vm.inside /run/results
echo "== results"
cat /run/results/results.json
echo
echo "== end"
busybox poweroff -f
