// SPDX-License-Identifier: Apache-2.0

//go:build devicevm

package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A machine is a Debian in QEMU, with swtpm for a chip, and a shell of root's on a port.
type machine struct {
	t     *testing.T
	dir   string // of the test
	image string // .ci/device-vm's folder
	qemu  *exec.Cmd
	chip  *exec.Cmd
	shell net.Conn
	lines *bufio.Reader
}

// kernelArguments leave out what an emulated processor takes long for, and what takes it for
// too slow a real one.
const kernelArguments = "root=/dev/vda rw console=ttyS0 panic=-1 mitigations=off nokaslr init_on_alloc=0 apparmor=0 audit=0 " +
	"systemd.default_device_timeout_sec=600 systemd.default_timeout_start_sec=600 cryptomgr.notests tsc=reliable no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1 systemd.show_status=1 "

// patience is how long something may take in a machine that is emulated on a busy one.
const patience = 4 * time.Minute

// boot starts the machine, off or new, and waits for its shell.
func (m *machine) boot(hasChip bool, arguments string) {
	m.t.Helper()
	socket := filepath.Join(m.dir, "shell")
	_ = os.Remove(socket)
	// One processor: with two, QEMU 7.2 runs code now and then that the kernel has changed for
	// both, which it does in a boot and in a suspend, and the kernel panics.
	args := []string{
		"-machine", "q35", "-accel", "tcg,tb-size=512", "-cpu", "max,la57=off,svm=off", "-smp", "1", "-m", "512",
		"-nodefaults", "-display", "none", "-no-reboot", "-rtc", "base=1970-01-01T00:00:00",
		"-kernel", filepath.Join(m.image, "vmlinuz"), "-initrd", filepath.Join(m.image, "initrd"), "-append", kernelArguments + arguments,
		"-drive", "if=virtio,format=raw,cache=writeback,file=" + filepath.Join(m.dir, "root.img"),
		"-drive", "if=virtio,format=raw,readonly=on,file=" + filepath.Join(m.dir, "files.tar"),
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net",
		"-device", "virtio-serial", "-chardev", "socket,id=shell,server=on,wait=off,path=" + socket, "-device", "virtserialport,chardev=shell,name=agent",
		"-serial", "file:" + filepath.Join(m.dir, "console"), "-qmp", "unix:" + m.monitor() + ",server=on,wait=off",
	}
	if hasChip {
		control := filepath.Join(m.dir, "chip")
		_ = os.Remove(control)
		m.chip = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+filepath.Join(m.dir, "tpm"), "--ctrl", "type=unixio,path="+control)
		m.start(m.chip)
		m.until("swtpm", 30*time.Second, func() bool { _, err := os.Stat(control); return err == nil })
		args = append(args, "-chardev", "socket,id=chip,path="+control, "-tpmdev", "emulator,id=tpm,chardev=chip", "-device", "tpm-crb,tpmdev=tpm")
	}
	m.qemu = exec.Command("qemu-system-x86_64", args...)
	m.start(m.qemu)
	m.until("the shell's port", 30*time.Second, func() bool {
		var err error
		m.shell, err = net.Dial("unix", socket)
		return err == nil
	})
	m.lines = bufio.NewReaderSize(m.shell, 1<<20)
	m.read(2 * patience)
}

func (m *machine) start(cmd *exec.Cmd) {
	m.t.Helper()
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		m.t.Fatalf("%v (make device-vm installs it on Debian)", err)
	}
	go func() { _ = cmd.Wait() }()
}

// cut takes the power away.
func (m *machine) cut() {
	for _, cmd := range []*exec.Cmd{m.qemu, m.chip} {
		if cmd != nil {
			_ = cmd.Process.Kill()
		}
	}
	if m.shell != nil {
		m.shell.Close()
	}
	m.qemu, m.chip, m.shell = nil, nil, nil
	time.Sleep(time.Second) // for the sockets and the disk to be let go
}

func (m *machine) read(limit time.Duration) string {
	m.t.Helper()
	_ = m.shell.SetReadDeadline(time.Now().Add(limit))
	line, err := m.lines.ReadString('\n')
	if err != nil {
		m.t.Fatalf("the machine does not answer: %v\n%s", err, m.console())
	}
	return strings.TrimSpace(line)
}

// try runs a script as root in the machine.
func (m *machine) try(script string) (output string, status int) {
	m.t.Helper()
	if _, err := fmt.Fprintln(m.shell, base64.StdEncoding.EncodeToString([]byte(script))); err != nil {
		m.t.Fatal(err)
	}
	code, encoded, _ := strings.Cut(m.read(patience), " ")
	text, err := base64.StdEncoding.DecodeString(encoded)
	status, numErr := strconv.Atoi(code)
	if err != nil || numErr != nil {
		m.t.Fatalf("the machine answers %q", code)
	}
	return strings.TrimSpace(string(text)), status
}

// sh runs a script that has to succeed.
func (m *machine) sh(script string) string {
	m.t.Helper()
	output, status := m.try("set -e\n" + script)
	if status != 0 {
		m.t.Fatalf("status %d of\n%s\n%s", status, script, output)
	}
	return output
}

func (m *machine) monitor() string { return filepath.Join(m.dir, "monitor") }

// console returns the end of what the machine has written on its console.
func (m *machine) console() string {
	text, _ := os.ReadFile(filepath.Join(m.dir, "console"))
	return string(text[max(0, len(text)-4000):])
}

// sleep suspends the machine to RAM and wakes it, as somebody does who presses its button.
func (m *machine) sleep() {
	m.t.Helper()
	line, err := net.Dial("unix", m.monitor())
	if err != nil {
		m.t.Fatal(err)
	}
	defer line.Close()
	_ = line.SetDeadline(time.Now().Add(patience))
	m.sh("(sleep 1; echo mem >/sys/power/state) >/dev/null 2>&1 &")
	fmt.Fprintln(line, `{"execute": "qmp_capabilities"}`)
	from := json.NewDecoder(line)
	await := func(event string) {
		for {
			var message struct{ Event string }
			if err := from.Decode(&message); err != nil {
				m.t.Fatalf("QEMU does not say %s: %v", event, err)
			}
			if message.Event == event {
				return
			}
		}
	}
	await("SUSPEND")
	fmt.Fprintln(line, `{"execute": "system_wakeup"}`)
	await("WAKEUP")
}

// journal returns what the service has logged since this boot, without the first lines.
func (m *machine) journal(skip int) []string {
	m.t.Helper()
	lines := strings.Split(m.sh("journalctl -b -o cat _SYSTEMD_UNIT=instancekey-device.service"), "\n")
	return lines[min(skip, len(lines)):]
}

func (m *machine) until(what string, limit time.Duration, done func() bool) {
	m.t.Helper()
	for start := time.Now(); !done(); time.Sleep(200 * time.Millisecond) {
		if time.Since(start) > limit {
			m.t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// logs waits for a line with all of these in it, after the first lines.
func (m *machine) logs(skip int, parts ...string) {
	m.t.Helper()
	m.until(fmt.Sprintf("a line with %q", parts), patience, func() bool { return matching(m.journal(skip), parts...) > 0 })
}

func matching(lines []string, parts ...string) (n int) {
	for _, line := range lines {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			n++
		}
	}
	return n
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if output, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}
