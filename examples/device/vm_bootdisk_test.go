// SPDX-License-Identifier: Apache-2.0

//go:build devicevm && linux

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Where Debian has its files. The keys of OVMF's snakeoil variables are ours as well as
// anybody's.
const (
	ovmf           = "/usr/share/OVMF"
	ownCertificate = "/usr/share/ovmf/PkKek-1-snakeoil.pem"
	ownKey         = "/usr/share/ovmf/PkKek-1-snakeoil.key"
	stub           = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	shim           = "/usr/lib/shim/shimx64.efi.signed"
	grub           = "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
)

// firmwareInitrd makes a file system with nothing in it but this test binary.
func firmwareInitrd(t *testing.T) (path string) {
	t.Helper()
	root := t.TempDir()
	build := exec.Command("go", "test", "-c", "-tags", "devicevm", "-ldflags", "-s -w", "-o", filepath.Join(root, "init"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	archive := exec.Command("cpio", "-o", "-H", "newc", "--quiet")
	archive.Dir, archive.Stdin = root, strings.NewReader("init\n")
	image, err := archive.Output()
	if err != nil {
		t.Fatalf("cpio: %v", err)
	}
	var packed bytes.Buffer
	to := gzip.NewWriter(&packed)
	if _, err := to.Write(image); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(root, "initrd"), packed.String())
}

// makeUKI puts kernel, arguments and initrd into one image, signed by the owner of the firmware's keys.
func makeUKI(t *testing.T, esp, kernel, initrd, arguments string) {
	t.Helper()
	dir := t.TempDir()
	image, err := pe.Open(stub)
	if err != nil {
		t.Fatalf("%v (make device-firmware installs it on Debian)", err)
	}
	defer image.Close()
	var end uint64
	base := image.OptionalHeader.(*pe.OptionalHeader64).ImageBase
	for _, section := range image.Sections {
		end = max(end, base+uint64(section.VirtualAddress)+uint64(section.VirtualSize))
	}
	var args []string
	for _, section := range []struct{ name, file string }{
		{".osrel", write(t, filepath.Join(dir, "osrel"), "ID=instancekey\nVERSION_ID=1\n")},
		{".cmdline", write(t, filepath.Join(dir, "cmdline"), arguments)},
		{".initrd", initrd},
		{".linux", kernel},
	} {
		end = (end + 0xffff) &^ 0xffff
		args = append(args, "--add-section", section.name+"="+section.file, "--change-section-vma", fmt.Sprintf("%s=%#x", section.name, end))
		info, err := os.Stat(section.file)
		if err != nil {
			t.Fatal(err)
		}
		end += uint64(info.Size())
	}
	unsigned, key := filepath.Join(dir, "unsigned"), filepath.Join(dir, "key")
	command(t, "objcopy", append(args, stub, unsigned)...)
	// objcopy writes the time into the image: what is made of the same parts has to be the same.
	content := fileBytes(t, unsigned)
	clear(content[binary.LittleEndian.Uint32(content[0x3c:])+8:][:4])
	write(t, unsigned, string(content))
	command(t, "openssl", "rsa", "-in", ownKey, "-passin", "pass:snakeoil", "-out", key)
	folder := filepath.Join(esp, "EFI", "BOOT")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "sbsign", "--key", key, "--cert", ownCertificate, "--output", filepath.Join(folder, "BOOTX64.EFI"), unsigned)
}

// makeGRUB has Debian's signed shim and GRUB load Debian's signed kernel.
func makeGRUB(t *testing.T, esp, kernel, initrd, arguments string) {
	t.Helper()
	for to, from := range map[string]string{"EFI/BOOT/BOOTX64.EFI": shim, "EFI/BOOT/grubx64.efi": grub, "vmlinuz": kernel, "initrd": initrd} {
		path := filepath.Join(esp, to)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		command(t, "cp", from, path)
	}
	if err := os.MkdirAll(filepath.Join(esp, "EFI", "debian"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(esp, "EFI", "debian", "grub.cfg"), "linux /vmlinuz "+arguments+"\ninitrd /initrd\nboot\n")
}

// notBooted begins what bootFirmware returns where firmware or boot loader refuse.
const notBooted = "not booted: "

// bootFirmware starts a machine with this disk, and returns what the device in it says.
func bootFirmware(t *testing.T, dir, esp, variables, attester string) string {
	t.Helper()
	vars := filepath.Join(dir, "vars.fd")
	command(t, "cp", filepath.Join(ovmf, variables), vars)
	control := filepath.Join(dir, "chip")
	_ = os.Remove(control)
	chip := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+filepath.Join(dir, "tpm"), "--ctrl", "type=unixio,path="+control)
	if err := chip.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = chip.Process.Kill()
		_ = chip.Wait()
	}()
	for range 100 {
		if _, err := os.Stat(control); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	host, port, _ := strings.Cut(serialTo(t, attester), ":")
	console, output := io.Pipe()
	qemu := exec.Command("qemu-system-x86_64",
		"-machine", "q35,smm=on", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off,svm=off", "-smp", "2", "-m", "512",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+filepath.Join(ovmf, "OVMF_CODE_4M.secboot.fd"),
		"-drive", "if=pflash,format=raw,unit=1,file="+vars,
		"-drive", "if=virtio,format=raw,readonly=on,file=fat:"+esp,
		"-serial", "stdio", "-chardev", "socket,id=line,host="+host+",port="+port, "-serial", "chardev:line",
		"-chardev", "socket,id=chip,path="+control, "-tpmdev", "emulator,id=tpm,chardev=chip", "-device", "tpm-crb,tpmdev=tpm")
	qemu.Stdout, qemu.Stderr = output, output
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(2*patience, func() { _ = qemu.Process.Kill() })
	defer limit.Stop()
	go func() {
		_ = qemu.Wait()
		output.Close()
	}()
	defer func() {
		_ = qemu.Process.Kill()
		_, _ = io.Copy(io.Discard, console)
	}()
	var tail []string
	for lines := bufio.NewScanner(console); lines.Scan(); {
		if _, said, found := strings.Cut(lines.Text(), firmwareSays); found {
			return strings.TrimSpace(said)
		}
		for _, refusal := range []string{"Access Denied", "bad shim signature"} {
			if strings.Contains(lines.Text(), refusal) {
				return notBooted + lines.Text()
			}
		}
		tail = append(tail[max(0, len(tail)-50):], lines.Text())
	}
	t.Fatalf("the device has said nothing:\n%s", strings.Join(tail, "\n"))
	return ""
}

// lineBegins is what the device sends first on its second serial port. The firmware, which
// takes that for a console, has written to it before.
const lineBegins = "\x01instancekey\x01"

// serialTo returns an address for one connection, which leads to the server.
func serialTo(t *testing.T, server string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		port, err := listener.Accept()
		if err != nil {
			return
		}
		defer port.Close()
		from := bufio.NewReader(port)
		for heard := ""; !strings.HasSuffix(heard, lineBegins); {
			b, err := from.ReadByte()
			if err != nil {
				return
			}
			heard = heard[max(0, len(heard)-len(lineBegins)):] + string(rune(b))
		}
		to, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer to.Close()
		go func() { _, _ = io.Copy(port, to) }()
		_, _ = io.Copy(to, from)
	}()
	return listener.Addr().String()
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if output, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, output)
	}
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
