// SPDX-License-Identifier: Apache-2.0

//go:build devicevm

package main

import "strings"

func (l *vmLife) diskFull() {
	mark := len(l.journal(0))
	l.sh("n=0; for size in 200M 20M 2M 200K 20K 4K; do while fallocate -l $size /fill.$n 2>/dev/null; do n=$((n+1)); done; done; sync")
	l.refuse()
	l.goesOn()
	l.logs(mark, "not kept")
	l.sh("rm /fill.*; sync")
	l.refuse()
	l.goesOn()
	if n := matching(l.journal(mark), "not kept"); n != 1 {
		l.Errorf("%d lines of what was not kept:\n%s", n, strings.Join(l.journal(mark), "\n"))
	}
}

func (l *vmLife) readOnly() {
	l.sh("sync; echo u >/proc/sysrq-trigger; sleep 1; ! touch /x 2>/dev/null")
	mark := len(l.journal(0))
	l.sh("systemctl restart instancekey-device")
	l.goesOn()
	l.refuse()
	l.goesOn()
	l.logs(mark, "not kept")
	l.sh("mount -o remount,rw /; touch /x; systemctl restart instancekey-device")
	l.goesOn()
}

func (l *vmLife) sigterm() {
	l.sh("systemctl stop instancekey-device")
	if result := l.sh("systemctl show -P Result instancekey-device; systemctl show -P ExecMainStatus instancekey-device"); result != "success\n0" {
		l.Errorf("it ended with %q", result)
	}
	for _, kind := range []string{"transient", "loaded-session", "saved-session"} {
		if left := l.sh("tpm2_getcap handles-" + kind); left != "" {
			l.Errorf("left in the TPM: %s", left)
		}
	}
	l.sh("systemctl start instancekey-device")
	l.goesOn()
}

func (l *vmLife) powerCut() {
	// Anew, so that something was just written.
	l.refuse()
	l.goesOn()
	l.cut()
	attested, instances := l.attester.count("/client-attestation"), l.instances()
	l.network(false)
	l.boot(true, "vm.latechip")
	l.sh("test -s /var/lib/private/instancekey-device/keys/device.pem")
	l.after = func() {
		l.Helper()
		if n := l.instances(); n != instances {
			l.Errorf("%d keys, want %d", n, instances)
		}
		if n := l.attester.count("/client-attestation"); n != attested {
			l.Errorf("attested again, %d times", n-attested)
		}
	}
}

func (l *vmLife) noNetwork() {
	l.sh("systemctl is-active instancekey-device")
	l.isUp("multi-user.target without a network")
	if routes := l.sh("ip route"); routes != "" {
		l.Errorf("there is a network: %s", routes)
	}
	l.networkUp()
	l.network(true)
}
