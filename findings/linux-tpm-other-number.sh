#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Linux gives a TPM whose driver is bound anew (a module that is loaded again, a bus that is
# scanned again) another number, though nothing has its device file open: the machine's
# only TPM is /dev/tpmrm1 then, and tpm1 in securityfs. The number belongs to the kernel's
# chip object, which lives as long as its last user, and the first chip has one that never
# lets go: IMA, also with no policy (without its init, 0 is given again). So /dev/tpmrm0
# comes back with the next boot and not before. A program that still has /dev/tpmrm1 open
# makes the next one /dev/tpmrm2; when it has closed that, 1 is given again. Who reopens
# "its" path after an error waits for ever, and tpm2-tss looks for /dev/tpmrm0 and
# /dev/tpm0 alone.
#
# Seen with Debian 12's Linux 6.1 in QEMU 7.2 with swtpm 0.7.1 behind tpm_crb. Fails if
# that changes.
set -euo pipefail

if ! command -v qemu-system-x86_64 swtpm cpio busybox >/dev/null; then
	apt-get -qq update >/dev/null
	apt-get -qq install -y --no-install-recommends qemu-system-x86 swtpm cpio busybox-static >/dev/null
fi
dir=$(mktemp -d)
trap 'kill "$chip" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
qemu-system-x86_64 --version | head -n 1
swtpm --version | head -n 1
package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-6\.1\..*\)/\1/p' | head -n 1)
apt-get -qq download "$package" 2>/dev/null
dpkg-deb -f ./*.deb Package Version
dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards './boot/vmlinuz-*'

mkdir root
cp "$(command -v busybox)" root/busybox
cat >root/init <<'INIT'
#!/busybox sh
/busybox mkdir -p /dev /sys
/busybox mount -t devtmpfs devtmpfs /dev
/busybox mount -t sysfs sysfs /sys
driver=$(/busybox dirname /sys/bus/*/drivers/tpm_crb/MSFT0101:00)
again() {
	echo MSFT0101:00 >$driver/unbind
	echo MSFT0101:00 >$driver/bind
	echo "RESULT $1: $(echo /dev/tpmrm*)"
}
echo "RESULT at boot: $(echo /dev/tpmrm*)"
again "nobody has it open"
exec 3<>$(echo /dev/tpmrm*)
again "a program has that open"
exec 3>&-
again "closed again"
/busybox poweroff -f
INIT
chmod 755 root/init
(cd root && find . | cpio -o -H newc --quiet) >initrd

# try boots with an argument, and compares the device files with those that are expected.
try() { # TITLE ARGUMENT FILES...
	echo "$1:"
	swtpm socket --tpm2 --tpmstate dir=. --ctrl type=unixio,path=control --terminate &
	chip=$!
	for _ in $(seq 50); do [ -S control ] && break; sleep 0.1; done
	timeout 300 qemu-system-x86_64 -machine q35,accel=tcg -cpu max -m 512 -nographic -no-reboot \
		-kernel boot/vmlinuz-* -initrd initrd -append "console=ttyS0 quiet panic=-1 $2" \
		-chardev socket,id=chip,path=control -tpmdev emulator,id=tpm,chardev=chip -device tpm-crb,tpmdev=tpm \
		</dev/null | tr -d '\r' | sed -n 's/.*RESULT //p' >seen
	wait "$chip" || true
	cat seen
	[ "$(sed 's/.*: //' seen | xargs)" = "$3" ]
}
try "as Debian builds it" "" "/dev/tpmrm0 /dev/tpmrm1 /dev/tpmrm2 /dev/tpmrm1"
try "without IMA" initcall_blacklist=init_ima "/dev/tpmrm0 /dev/tpmrm0 /dev/tpmrm1 /dev/tpmrm0"
echo "as described"
