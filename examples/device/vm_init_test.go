// SPDX-License-Identifier: Apache-2.0

//go:build devicevm && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
)

// firmwareSays begins the one line that the device writes on its console.
const firmwareSays = "instancekey-device: "

// init makes this test binary the only program of a machine, if it is its first process.
func init() {
	if os.Getpid() != 1 {
		return
	}
	attestation, err := attestFirmware()
	if err != nil {
		fmt.Printf("\n%srefused %q\n", firmwareSays, err)
	} else {
		fmt.Printf("\n%sattested %s\n", firmwareSays, attestation)
	}
	time.Sleep(time.Second) // for the line to be out
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

// attestFirmware asks the attester that the kernel's command line names, over the second serial port.
func attestFirmware() (string, error) {
	for _, fs := range []struct{ kind, path string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"securityfs", "/sys/kernel/security"},
	} {
		_ = os.MkdirAll(fs.path, 0o755)
		if err := syscall.Mount(fs.kind, fs.path, fs.kind, 0, ""); err != nil && !errors.Is(err, syscall.EBUSY) {
			return "", fmt.Errorf("%s: %w", fs.path, err)
		}
	}
	arguments, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	_, attester, _ := strings.Cut(string(arguments), "attester=")
	attester, _, _ = strings.Cut(strings.TrimSpace(attester), " ")

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := device{options: options{bootLog: true}}
	d.log, d.told = newLogger(os.Stdout, 0)
	store, err := openStore(ctx, "/dev/tpmrm0", "/tmp/keys", d.bootLogFrom(bootLog))
	if err != nil {
		return "", err
	}
	defer store.Close()
	key, err := keystore.OpenOrCreate(ctx, store, keyName)
	if err != nil {
		return "", err
	}
	line := &http.Client{Transport: &http.Transport{DialContext: dialSerial}}
	return client.HTTPAttester{URL: attester, Client: line}.Attest(ctx, client.AttestRequest{ClientID: clientID, Key: key})
}

// A serialLine is a connection over a serial port.
type serialLine struct {
	*os.File
	net.Conn // nil: what os.File has no method for is not called
}

func (s serialLine) Read(b []byte) (int, error)       { return s.File.Read(b) }
func (s serialLine) Write(b []byte) (int, error)      { return s.File.Write(b) }
func (s serialLine) Close() error                     { return s.File.Close() }
func (s serialLine) SetDeadline(time.Time) error      { return nil }
func (s serialLine) SetReadDeadline(time.Time) error  { return nil }
func (s serialLine) SetWriteDeadline(time.Time) error { return nil }
func (s serialLine) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (s serialLine) RemoteAddr() net.Addr             { return &net.UnixAddr{} }

func dialSerial(context.Context, string, string) (net.Conn, error) {
	port, err := os.OpenFile("/dev/ttyS1", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	mode, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err == nil {
		mode.Iflag, mode.Oflag, mode.Lflag = 0, 0, 0
		mode.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
		mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
		err = unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, mode)
	}
	if err == nil {
		_, err = port.WriteString(lineBegins)
	}
	return serialLine{File: port}, err
}
