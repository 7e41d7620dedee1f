// SPDX-License-Identifier: Apache-2.0

//go:build devicevm

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

// pack puts what a technician brings along into an archive, which is a disk of the machine.
func (w *vmWorld) pack(t *testing.T, dir string) {
	t.Helper()
	program := filepath.Join(dir, "instancekey-device")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	var archive bytes.Buffer
	to := tar.NewWriter(&archive)
	for name, from := range map[string]string{"instancekey-device": program, "instancekey-device.service": "instancekey-device.service", "private-ca.crt": w.ca} {
		content, err := os.ReadFile(from)
		if err == nil {
			err = to.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg})
		}
		if err == nil {
			_, err = to.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	archive.Write(make([]byte, 1<<20-archive.Len()%(1<<20))) // whole sectors
	if err := os.WriteFile(filepath.Join(dir, "files.tar"), archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readme returns the block of commands in the README that has this line in it.
func readme(t *testing.T, has string) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	inBlock := false
	for line := range strings.Lines(string(text)) {
		indented := strings.HasPrefix(line, "    ")
		if indented && !inBlock {
			blocks = append(blocks, "")
		}
		if inBlock = indented; indented {
			blocks[len(blocks)-1] += strings.TrimLeft(line, " ")
		}
	}
	for _, block := range blocks {
		if strings.Contains(block, has) {
			return block
		}
	}
	t.Fatalf("the README has no commands with %q", has)
	return ""
}

// install does what the README says under "As a service".
func (l *vmLife) install() {
	l.sh("mkdir -p /root/files && cd /root/files && tar -xf /dev/vdb")
	l.networkUp()
	block := readme(l.T, "install -m 755 instancekey-device")
	before, rest, found := strings.Cut(block, "DEVICE_FLAGS=")
	_, after, ends := strings.Cut(rest, "\n")
	if !found || !ends {
		l.Fatalf("the README sets no flags: %s", block)
	}
	flags := fmt.Sprintf("-issuer %s -client-id %s -attester %s -resource %s/readings -scope readings -every 2s",
		l.authServer.URL, clientID, l.attester.URL, l.resource.URL)
	l.sh("cd /root/files\n" + before + "DEVICE_FLAGS=" + flags + "\n" + after)
}

func (l *vmLife) networkUp() {
	l.sh(`until ls /sys/class/net | grep -qv lo; do sleep 1; done
		udevadm settle
		link=$(ls /sys/class/net | grep -v lo)
		ip link set $link up; ip addr add 10.0.2.15/24 dev $link; ip route add default via 10.0.2.2`)
}

func (l *vmLife) calls() int { return l.resource.count("/readings") }

// goesOn waits for good calls.
func (l *vmLife) goesOn() {
	l.Helper()
	from := l.calls()
	l.until("calls", patience, func() bool { return l.calls() >= from+3 })
}

const allButKey = "token.json attestations time"

func (l *vmLife) bootLog() {
	here := l.sh("cat /sys/kernel/security/tpm0/binary_bios_measurements | wc -c")
	if sent := l.largestLog(); sent < 500 || strconv.FormatInt(sent, 10) != here {
		l.Errorf("a boot log of %d bytes was sent; here it has %s", sent, here)
	}
}

func (l *vmLife) ima() {
	l.sh(`printf "measure func=BPRM_CHECK\nmeasure func=FILE_MMAP mask=MAY_EXEC\n" >/sys/kernel/security/ima/policy; tpm2_pcrread -Q sha256:10`)
	if n, _ := strconv.Atoi(l.sh("wc -l </sys/kernel/security/ima/ascii_runtime_measurements")); n < 20 {
		l.Errorf("IMA has measured %d files", n)
	}
	l.startAt(time.Now(), allButKey) // and is attested beside it
}

func (l *vmLife) serversAway() {
	mark := len(l.journal(0))
	l.network(false)
	l.logs(mark, "level=WARN", "calls fail")
	time.Sleep(5 * time.Second)
	l.network(true)
	l.goesOn()
	if n := matching(l.journal(mark), "level=WARN"); n != 1 {
		l.Errorf("%d warnings in an outage:\n%s", n, strings.Join(l.journal(mark), "\n"))
	}
	l.logs(mark, "level=INFO", "calls work")
}

func (l *vmLife) attesterAway() {
	l.attester.set(true)
	defer l.attester.set(false)
	asked := l.attester.count("/challenge")
	l.sh("systemctl restart instancekey-device")
	l.goesOn()
	if n := l.attester.count("/challenge"); n != asked {
		l.Errorf("the attester was asked %d times", n-asked)
	}
}

func (l *vmLife) tokenRefused() {
	mark, tokens := len(l.journal(0)), l.authServer.count("/token")
	l.refuse()
	l.goesOn()
	if n := l.authServer.count("/token") - tokens; n != 1 {
		l.Errorf("%d token requests, want 1", n)
	}
	if n := matching(l.journal(mark), "calls fail"); n != 0 {
		l.Errorf("%d lines of calls that fail", n)
	}
}

func (l *vmLife) refreshEnds() {
	mark := len(l.journal(0))
	as := l.authServer.handler
	l.authServer.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "grant_type=refresh_token") {
			answer(rw, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		as.ServeHTTP(rw, r)
	}))
	defer l.authServer.serve(as)
	l.refuse()
	l.goesOn()
	l.logs(mark, "level=WARN", "refresh token has ended")
}

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
	l.sh("systemctl is-active instancekey-device && systemctl is-active multi-user.target")
	if routes := l.sh("ip route"); routes != "" {
		l.Errorf("there is a network: %s", routes)
	}
	l.networkUp()
	l.network(true)
}

func (l *vmLife) lateDriver() {
	l.sh("test ! -e /dev/tpmrm0")
	l.logs(0, "level=WARN", "no key store", "no TPM")
	pid := l.sh("systemctl show -P MainPID instancekey-device")
	// The driver that it was taken away from. The kernel may still count the chip of before,
	// and give this one another number.
	output, status := l.try("echo MSFT0101:00 >$(cat /run/vm-late-chip)/bind; udevadm settle; ls -l /dev/tpm*; test -e /dev/tpmrm0 || mv /dev/tpmrm[1-9] /dev/tpmrm0")
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

func (l *vmLife) suspend() {
	l.sh("echo +3 >/sys/class/rtc/rtc0/wakealarm; echo mem >/sys/power/state")
	l.sh("dmesg | grep -q 'PM: suspend exit'")
	l.refuse()
	l.goesOn()
	l.after()
}

func (l *vmLife) cleared() {
	for i, recover := range []string{"/&-re-enrol /", "rm -rf /var/lib/instancekey-device/keys"} {
		instances := l.instances()
		l.sh("tpm2_clear -c p || tpm2_clear -c l")
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
	l.until("multi-user.target without a chip", patience, func() bool {
		_, status := l.try("systemctl is-active multi-user.target")
		return status == 0
	})
	if n := matching(l.journal(0), "level=WARN", "no key store"); n != 1 {
		l.Errorf("%d lines of it", n)
	}
}
