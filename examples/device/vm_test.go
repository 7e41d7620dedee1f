// SPDX-License-Identifier: Apache-2.0

//go:build devicevm

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// vmChecks are the rows of the README's table, in the order in which they are tried. They
// go on where the one before has stopped: it is one life of one device.
var vmChecks = []struct {
	name string
	run  func(l *vmLife)
}{

	{"the clock shows 1970", (*vmLife).clockShows1970},
	{"a certificate authority is installed later", (*vmLife).authorityLater},
	{"the server's certificate is younger than the program", (*vmLife).youngCertificate},
	{"the attester asks for the boot log", (*vmLife).bootLog},
	{"IMA is on", (*vmLife).ima},
	{"the clock is 20 days behind", (*vmLife).clockBehind},
	{"the clock is 30 days ahead", (*vmLife).clockAhead},
	{"the clock is set while it runs", (*vmLife).clockIsSet},
	{"network, authorization server and resource are away", (*vmLife).serversAway},
	{"the Client Attester is away", (*vmLife).attesterAway},
	{"the resource refuses the token", (*vmLife).tokenRefused},
	{"the refresh token has ended", (*vmLife).refreshEnds},
	{"the disk is full", (*vmLife).diskFull},
	{"the file system is read-only", (*vmLife).readOnly},
	{"SIGTERM", (*vmLife).sigterm},
	{"power cut", (*vmLife).powerCut},
	{"no network at boot", (*vmLife).noNetwork},
	{"the TPM's driver is late", (*vmLife).lateDriver},
	{"the TPM's driver goes and comes", (*vmLife).comesAndGoes},
	{"suspend to RAM", (*vmLife).suspend},
	{"the TPM is cleared", (*vmLife).cleared},
	{"no TPM at all", (*vmLife).noChip},
}

// vmLife is a device in a virtual machine, and its servers on this one.
type vmLife struct {
	*testing.T
	*machine
	*vmWorld
}

// TestDeviceVM installs the program on a Debian with systemd as the README says, and does
// to it what stands in the README's table:
//
//	make device-vm
func TestDeviceVM(t *testing.T) {
	image := os.Getenv("DEVICE_VM")
	if image == "" {
		t.Fatal("DEVICE_VM does not name a folder that .ci/device-vm has made: use make device-vm")
	}
	m := &machine{t: t, dir: t.TempDir(), image: image}
	defer m.cut()
	copyFile(t, filepath.Join(image, "root.img"), filepath.Join(m.dir, "root.img"))
	w := newVMWorld(t, m.dir)
	w.pack(t, m.dir)
	start := time.Now()
	m.boot(true, "")
	t.Logf("booted after %v", time.Since(start).Round(time.Second))
	l := &vmLife{T: t, machine: m, vmWorld: w}
	l.install()
	for _, check := range vmChecks {
		start := time.Now()
		passed := t.Run(check.name, func(t *testing.T) { l.T, m.t, w.t = t, t, t; check.run(l) })
		l.T, m.t, w.t = t, t, t
		t.Logf("%s: %v, %v", check.name, passed, time.Since(start).Round(time.Second))
		if !passed {
			t.Logf("the service's last lines:\n%s", m.sh("journalctl -b -o cat -u instancekey-device -n 40"))
		}
	}
}

func (l *vmLife) calls() int { return l.resource.count("/readings") }

// goesOn waits for good calls.
func (l *vmLife) goesOn() {
	l.Helper()
	from := l.calls()
	l.until("calls", patience, func() bool { return l.calls() >= from+3 })
}

// isUp waits until the machine has started all that it starts.
func (l *vmLife) isUp(what string) {
	l.Helper()
	l.until(what, patience, func() bool {
		_, status := l.try("systemctl is-active multi-user.target")
		return status == 0
	})
}
