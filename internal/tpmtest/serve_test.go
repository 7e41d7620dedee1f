// SPDX-License-Identifier: Apache-2.0

package tpmtest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// socket is a Device of a socket with plain TPM commands.
type socket string

func (s socket) Dial(context.Context) (transport.TPMCloser, error) {
	conn, err := net.Dial("unix", string(s))
	if err != nil {
		return nil, err
	}
	return transport.FromReadWriteCloser(conn), nil
}

func TestServeUnix(t *testing.T) {
	rm, chip, _ := managed(t)
	rm.Roomy = true
	dev := socket(tpmtest.ServeUnix(t, rm))

	a, b := tpmtest.Dial(t, dev), tpmtest.Dial(t, dev)
	key := create(t, a)
	create(t, a)
	create(t, a)
	if _, err := tryCreate(a); !errors.Is(err, tpm2.TPMRCObjectMemory) {
		t.Errorf("fourth object: %v", err)
	}
	if own := create(t, b); own.ObjectHandle != key.ObjectHandle {
		t.Errorf("handle %#x on the second connection, %#x on the first", own.ObjectHandle, key.ObjectHandle)
	}
	for range 3 {
		if _, _, err := newSession(a); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := newSession(a); !errors.Is(err, tpm2.TPMRCSessionMemory) {
		t.Errorf("fourth session: %v", err)
	}
	if err := signKey(a, key); err != nil {
		t.Error(err)
	}
	tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
}

// The end of a connection closes its file, also if nobody said goodbye to the TPM.
func TestServeUnixEnd(t *testing.T) {
	rm, chip, _ := managed(t)
	t.Run("server", func(t *testing.T) {
		conn, err := socket(tpmtest.ServeUnix(t, rm)).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := newSession(conn); err != nil {
			t.Fatal(err)
		}
		chip.Reset()
		conn.Close()
	}) // which waits for the server's end
	chip.Want(t, tpm2.TPMCCFlushContext)
	tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
}

func TestServeUnixGarbage(t *testing.T) {
	rm, chip, _ := managed(t)
	path := tpmtest.ServeUnix(t, rm)
	for _, cmd := range []string{"GET / HTTP/1.1\r\n", "\x80\x01\x00\x00\x00\x09\x00\x00\x01\x7b", "\x80\x01\x00\x00\x10\x01\x00\x00\x01\x7b"} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(cmd)); err != nil {
			t.Fatal(err)
		}
		if rsp, _ := io.ReadAll(conn); len(rsp) != 0 {
			t.Errorf("%q was answered: %x", cmd, rsp)
		}
	}
	if chip.Count() != 0 {
		t.Errorf("the chip saw %s", tpmtest.Names(chip.Codes()))
	}
}

// A dial for each command is a file for each command.
func TestServeUnixShortConnections(t *testing.T) {
	rm, _, _ := managed(t)
	dev := socket(tpmtest.ServeUnix(t, rm))
	for range 20 {
		tpm, err := dev.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := random(tpm); err != nil {
			t.Fatal(err)
		}
		tpm.Close()
	}
}

func TestTools(t *testing.T) {
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{TCP: true})
	network, addr := sw.Addr()
	if got := tpmtest.Tool(t, tpmtest.TCTI(t, network, addr), "tpm2_getrandom", "--hex", "8"); len(got) != 16 {
		t.Errorf("tpm2_getrandom on swtpm itself: %q", got)
	}

	chip := tpmtest.FromTPM(tpmtest.Dial(t, sw))
	rm := tpmtest.NewResourceManager(t, chip)
	tcti := tpmtest.TCTI(t, "unix", tpmtest.ServeUnix(t, rm))
	file := openFile(t, rm)
	key := create(t, file) // stays loaded while others work

	primary := filepath.Join(t.TempDir(), "primary.ctx")
	tpmtest.Tool(t, tcti, "tpm2_createprimary", "-Q", "-G", "ecc256", "-c", primary)
	if _, err := os.Stat(primary); err != nil {
		t.Error(err)
	}
	tpmtest.Tool(t, tcti, "tpm2_evictcontrol", "-Q", "-c", primary, "0x81000042")
	if out := tpmtest.Tool(t, tcti, "tpm2_getcap", "handles-persistent"); !strings.Contains(string(out), "0x81000042") {
		t.Errorf("tpm2_getcap: %s", out)
	}
	if got := tpmtest.Handles(t, file, tpm2.TPMHTPersistent); len(got) != 1 || got[0] != persistent {
		t.Errorf("persistent handles %#x", got)
	}

	if err := signKey(file, key); err != nil {
		t.Error(err)
	}
	file.Close()
	tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
}
