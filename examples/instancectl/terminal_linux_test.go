// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a terminal.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return screen, terminal
}

// TestProgressOnTerminal: a command that takes long says so on a terminal, and its message
// stands alone on its line afterwards.
func TestProgressOnTerminal(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "tpm")
	listener, err := net.Listen("unix", socket) // which nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	screen, terminal := openTerminal(t)
	status := run(t.Context(), []string{"key", "list", "-store", "unix:" + socket, "-keys", t.TempDir(), "-timeout", "1500ms"}, new(bytes.Buffer), terminal)
	var text string
	for shown := make([]byte, 4096); !strings.Contains(text, "\n"); { // which ends the message
		n, err := screen.Read(shown)
		if err != nil {
			t.Fatal(err)
		}
		text += string(shown[:n])
	}
	if status != 1 || !strings.Contains(text, "\r\x1b[Kopening the key store … 1 s\r\x1b[K") || !strings.Contains(text, "\r\x1b[Kinstancectl key list: not done after 1.5s") {
		t.Errorf("status %d, the screen has %q", status, text)
	}
}
