// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// socketOf is the Config.Device for a swtpm.
func socketOf(sw *tpmtest.SW) string {
	network, address := sw.Addr()
	return network + ":" + address
}

func openSocket(t *testing.T, device string) *tpm.Store {
	t.Helper()
	s, err := tpm.Open(t.Context(), tpm.Config{Device: device, Dir: filepath.Join(t.TempDir(), "keys")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestSocket: a TPM that nobody has started, and that is killed and started again.
func TestSocket(t *testing.T) {
	for _, tcp := range []bool{true, false} {
		sw := tpmtest.SWTPM(t, tpmtest.SWConfig{TCP: tcp, NotStarted: true})
		network, _ := sw.Addr()
		t.Run(network, func(t *testing.T) {
			s := openSocket(t, socketOf(sw))
			key := create(t, s, "k", tpm.KeyOptions{})
			sign(t, key)
			sw.Restart()
			sign(t, key)
			s.Close()
			tpmtest.NoLeaks(t, tpmtest.Dial(t, sw))
		})
	}
}

// TestSocketLeftovers: what a killed program has left in a TPM without a resource
// manager is removed.
func TestSocketLeftovers(t *testing.T) {
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{})
	conn, err := sw.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // all that it has room for
		if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(conn); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	s := openSocket(t, socketOf(sw))
	sign(t, create(t, s, "k", tpm.KeyOptions{}))
	s.Close()
	tpmtest.NoLeaks(t, tpmtest.Dial(t, sw))
}

// TestBadSocket: nothing is tried with an address that is none.
func TestBadSocket(t *testing.T) {
	for _, device := range []string{"unix:", "tcp:", "tcp:localhost", "tcp:::1:2321", "tcp:[::1]"} {
		dir := filepath.Join(t.TempDir(), "keys")
		_, err := tpm.Open(t.Context(), tpm.Config{Device: device, Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "tcp:HOST:PORT") {
			t.Errorf("%q: %v", device, err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: the folder was made", device)
		}
	}
	for _, device := range []string{"unix:/does/not/exist", "tcp:127.0.0.1:1", "unix:" + strings.Repeat("x", 200)} {
		_, err := tpm.Open(t.Context(), tpm.Config{Device: device, Dir: t.TempDir()})
		if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), "no TPM at") {
			t.Errorf("%q: %v", device, err)
		}
	}
}

// TestInUse: while another program has the TPM, the next connections are taken and never
// answered, and when the queue is full there are no more.
func TestInUse(t *testing.T) {
	tpm.SetInUseAfter(t, 100*time.Millisecond)
	for _, tcp := range []bool{true, false} {
		for _, full := range []bool{false, true} {
			sw := tpmtest.SWTPM(t, tpmtest.SWConfig{TCP: tcp})
			network, _ := sw.Addr()
			t.Run(fmt.Sprintf("%s, queue full: %t", network, full), func(t *testing.T) {
				tpmtest.Dial(t, sw)
				if full {
					fill(t, sw)
				}
				_, err := tpm.Open(t.Context(), tpm.Config{Device: socketOf(sw), Dir: t.TempDir()})
				wantError(t, err, keystore.ErrUnavailable, tpm.ErrInUse)
			})
		}
	}
}

// TestWaitForTPM: who waits gets the TPM when the other program lets it go.
func TestWaitForTPM(t *testing.T) {
	tpm.SetInUseAfter(t, time.Minute)
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{})
	letGo := fill(t, sw)
	dialled := make(chan error)
	go func() {
		s, err := tpm.Open(t.Context(), tpm.Config{Device: socketOf(sw), Dir: t.TempDir()})
		if err == nil {
			err = s.Close()
		}
		dialled <- err
	}()
	letGo()
	if err := <-dialled; err != nil {
		t.Error(err)
	}
}

// fill makes connections until there is no room for another one.
func fill(t *testing.T, sw *tpmtest.SW) (letGo func()) {
	t.Helper()
	var conns []io.Closer
	letGo = sync.OnceFunc(func() {
		for _, conn := range conns {
			conn.Close()
		}
	})
	t.Cleanup(letGo)
	for range 100 {
		// A full TCP queue does not answer at all.
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		conn, err := sw.Dial(ctx)
		cancel()
		var timeout net.Error // EAGAIN is one too
		if errors.As(err, &timeout) && timeout.Timeout() {
			return letGo
		}
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	t.Fatal("swtpm takes any number of connections")
	return nil
}

// TestSocketEndsWithContext: the first answer is not waited for any longer.
func TestSocketEndsWithContext(t *testing.T) {
	tpm.SetInUseAfter(t, time.Hour)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Read(make([]byte, 1)) // the first command is there
		cancel()
		<-t.Context().Done()
	}()
	_, err = tpm.Open(ctx, tpm.Config{Device: "tcp:" + l.Addr().String(), Dir: t.TempDir()})
	wantError(t, err, context.Canceled)
}
