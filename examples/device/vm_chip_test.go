// SPDX-License-Identifier: Apache-2.0

//go:build devicevm

package main

import (
	"strconv"
	"strings"
)

func (l *vmLife) lateDriver() {
	l.sh("test ! -e /dev/tpmrm0")
	l.logs(0, "level=WARN", "no key store", "no TPM")
	pid := l.sh("systemctl show -P MainPID instancekey-device")
	// The driver that it was taken away from. The kernel may still count the chip of before,
	// and give this one another number.
	output, status := l.try("echo MSFT0101:00 >$(cat /run/vm-late-chip)/bind; udevadm settle; ls -l /dev/tpmrm*")
	if status != 0 {
		l.Fatalf("the driver does not come back: %s\n%s", output, l.sh("cat /run/vm-late-chip; dmesg | grep tpm_"))
	}
	l.Logf("%s", output)
	l.goesOn()
	if now := l.sh("systemctl show -P MainPID instancekey-device"); now != pid {
		l.Error("it was started again")
	}
	l.after() // the power cut
}

// driver takes the TPM's driver away or brings it back, while the service runs.
func (l *vmLife) driver(steps ...string) {
	l.Helper()
	for _, step := range steps {
		l.sh("echo MSFT0101:00 >$(cat /run/vm-late-chip)/" + step)
	}
}

func (l *vmLife) comesAndGoes() {
	pid := l.sh("systemctl show -P MainPID instancekey-device")
	mark := len(l.journal(0))
	l.driver("unbind")
	l.refuse() // so that the key is needed
	l.logs(mark, "level=WARN", "no TPM")
	l.driver("bind")
	l.goesOn()
	// And so fast that the service still has the chip of before open.
	l.driver("unbind", "bind")
	l.refuse()
	l.goesOn()
	l.Logf("%s", l.sh("ls -l /dev/tpm*"))
	if now := l.sh("systemctl show -P MainPID instancekey-device"); now != pid {
		l.Error("it was started again")
	}
}

func (l *vmLife) suspend() {
	l.sleep()
	l.sh("dmesg | grep -q 'PM: suspend exit'")
	l.refuse()
	l.goesOn()
	l.after()
}

func (l *vmLife) cleared() {
	for i, recover := range []string{"/&-re-enrol /", "rm -rf /var/lib/instancekey-device/keys"} {
		instances := l.instances()
		l.sh("export TPM2TOOLS_TCTI=device:$(ls /dev/tpmrm*); tpm2_clear -c p || tpm2_clear -c l")
		l.sh("systemctl restart instancekey-device")
		l.until("the end", patience, func() bool {
			return l.sh("systemctl show -P ActiveState instancekey-device") == "failed"
		})
		if status := l.sh("systemctl show -P ExecMainStatus instancekey-device"); status != strconv.Itoa(statusKeyLost) {
			l.Errorf("status %s", status)
		}
		l.logs(0, "level=ERROR", "the key is lost")
		l.sh("systemctl reset-failed instancekey-device; true")
		l.sh(readme(l.T, recover))
		l.goesOn()
		if n := l.instances(); n != instances+1 {
			l.Errorf("after %d: %d keys, want %d", i, n, instances+1)
		}
	}
	if flags := l.sh("cat /etc/instancekey-device.conf"); strings.Contains(flags, "re-enrol") {
		l.Errorf("left: %s", flags)
	}
	// The program was run by hand, as root.
	l.sh("chown root /var/lib/private/instancekey-device/keys/device.pem; systemctl restart instancekey-device")
	l.logs(0, "level=WARN", "permission denied", "chown")
	l.sh(readme(l.T, "chown -R --reference"))
	l.goesOn()
}

func (l *vmLife) noChip() {
	l.cut()
	l.boot(false, "")
	l.logs(0, "level=WARN", "no key store", "no TPM")
	// A job that waited for the chip would do so for systemd.default_device_timeout_sec.
	l.isUp("multi-user.target without a chip")
	if n := matching(l.journal(0), "level=WARN", "no key store"); n != 1 {
		l.Errorf("%d lines of it", n)
	}
}
