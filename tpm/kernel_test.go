// SPDX-License-Identifier: Apache-2.0

//go:build hardware && linux

package tpm_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// ended is what the machine says last.
const ended = "instancekey: the tests have ended: "

// init makes this test binary the only program of a machine, if it is its first
// process: it runs TestHardware as a child.
func init() {
	if os.Getpid() != 1 {
		return
	}
	for _, fs := range []struct{ kind, path string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"securityfs", "/sys/kernel/security"},
	} {
		err := os.MkdirAll(fs.path, 0o755)
		if err == nil || fs.kind == "securityfs" {
			err = syscall.Mount(fs.kind, fs.path, fs.kind, 0, "")
		}
		if err != nil {
			fmt.Println(fs.kind, err)
		}
	}
	tests := exec.Command("/init", "-test.v", "-test.timeout=15m", "-test.run", "^TestHardware$")
	tests.Env = []string{"TPM_DEVICE=/dev/tpmrm0", "TPM_MACHINE=1", "HOME=/tmp"}
	tests.Stdout, tests.Stderr = os.Stdout, os.Stdout
	err := tests.Run()
	fmt.Println(ended, err)
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

// TestLinuxKernel runs TestHardware on a Linux kernel and its resource manager, in
// QEMU, with swtpm for a chip, and counts the commands that come to that:
//
//	make kernel
func TestLinuxKernel(t *testing.T) {
	kernel := os.Getenv("LINUX_KERNEL")
	if kernel == "" {
		t.Fatal("LINUX_KERNEL does not name the image of a Linux kernel: use make kernel")
	}
	dir := t.TempDir()
	chip := startChip(t, dir)
	console := boot(t, kernel, initialFileSystem(t, dir), chip.socket)
	passed := false
	for lines := bufio.NewScanner(console); lines.Scan(); {
		line := lines.Text()
		t.Log(line)
		passed = passed || strings.HasPrefix(line, "--- PASS: TestHardware ")
		if strings.Contains(line, ended) {
			break // some machines that have slept do not switch themselves off
		}
	}
	if !passed {
		t.Fatal("TestHardware has not passed in the machine")
	}
	counts := chip.signatures(t)
	for i, want := range commandsAtChip {
		if loaded, persistent := counts[2*i], counts[2*i+1]; loaded != want.loaded || persistent != want.persistent {
			t.Errorf("%+v: %d commands at the chip, and %d if it is persistent, want %d and %d",
				want.options, loaded, persistent, want.loaded, want.persistent)
		}
	}
}

// initialFileSystem makes a file system with nothing in it but this test binary.
func initialFileSystem(t *testing.T, dir string) (path string) {
	t.Helper()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "test", "-c", "-tags", "hardware", "-o", filepath.Join(root, "init"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	archive := exec.Command("cpio", "-o", "-H", "newc", "--quiet")
	archive.Dir, archive.Stdin = root, strings.NewReader("init\n")
	image, err := archive.Output()
	if err != nil {
		t.Fatalf("cpio: %v", err)
	}
	path = filepath.Join(dir, "initrd")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// boot starts a machine and returns what it writes on its console. It ends with the
// test, or after twenty minutes.
func boot(t *testing.T, kernel, initrd, chip string) io.Reader {
	t.Helper()
	console, output := io.Pipe()
	machine := exec.Command("qemu-system-x86_64",
		"-machine", "q35,accel=tcg", "-cpu", "max", "-m", "1024", "-smp", "2", "-nographic", "-no-reboot",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1",
		"-chardev", "socket,id=chip,path="+chip, "-tpmdev", "emulator,id=tpm,chardev=chip", "-device", "tpm-crb,tpmdev=tpm")
	machine.Stdout, machine.Stderr = output, output
	if err := machine.Start(); err != nil {
		t.Fatalf("%v (Debian: apt-get install qemu-system-x86)", err)
	}
	limit := time.AfterFunc(20*time.Minute, func() { _ = machine.Process.Kill() })
	go func() {
		_ = machine.Wait()
		output.Close()
	}()
	t.Cleanup(func() {
		limit.Stop()
		_ = machine.Process.Kill()
		_, _ = io.Copy(io.Discard, console)
	})
	return console
}

// chip is swtpm as QEMU wants it, with a log of all commands.
type chip struct{ socket, log string }

func startChip(t *testing.T, dir string) chip {
	t.Helper()
	c := chip{filepath.Join(dir, "chip"), filepath.Join(dir, "log")}
	pid := filepath.Join(dir, "pid")
	out, err := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+c.socket,
		"--log", "file="+c.log+",level=20", "--daemon", "--pid", "file="+pid).CombinedOutput()
	if err != nil {
		t.Fatalf("swtpm: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		text, err := os.ReadFile(pid)
		if number, numErr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && numErr == nil {
			_ = syscall.Kill(number, syscall.SIGTERM)
		}
	})
	return c
}

// signatures returns how many commands came between the marks of each number.
func (c chip) signatures(t *testing.T) map[int]int {
	t.Helper()
	log, err := os.ReadFile(c.log)
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[int]int)
	current := -1
	for _, entry := range bytes.Split(log, []byte("SWTPM_IO_Read: "))[1:] {
		entry, _, _ = bytes.Cut(entry, []byte("SWTPM_IO_Write"))
		_, octets, _ := bytes.Cut(entry, []byte("\n"))
		command, err := hex.DecodeString(strings.Join(strings.Fields(string(octets)), ""))
		if err != nil || len(command) < 12 {
			continue
		}
		code := tpm2.TPMCC(uint32(command[6])<<24 | uint32(command[7])<<16 | uint32(command[8])<<8 | uint32(command[9]))
		number := int(command[10])<<8 | int(command[11]) - 1
		switch {
		case code == tpm2.TPMCCGetRandom && current == number:
			current = -1
		case code == tpm2.TPMCCGetRandom && number < 2*len(commandsAtChip):
			current = number
		case current >= 0:
			counts[current]++
			t.Logf("signature %d: %s", current, tpmtest.Names([]tpm2.TPMCC{code}))
		}
	}
	return counts
}
