package storeflag_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

func TestSocket(t *testing.T) {
	for _, tcp := range []bool{true, false} {
		sw := tpmtest.SWTPM(t, tpmtest.SWConfig{TCP: tcp, NotStarted: true})
		network, address := sw.Addr()
		t.Run(network, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, "-store", network+":"+address, "-keys", dir)
			key, err := s.Create(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := key.Sign(t.Context(), []byte("x")); err != nil {
				t.Error(err)
			}
			s.Close()
			tpmtest.NoLeaks(t, tpmtest.Dial(t, sw))
		})
	}
}

// What a killed program has left in a TPM without a resource manager is removed.
func TestSocketLeftovers(t *testing.T) {
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{})
	conn, err := sw.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	network, address := sw.Addr()
	open(t, "-store", network+":"+address, "-keys", t.TempDir()).Close()
	tpmtest.NoLeaks(t, tpmtest.Dial(t, sw))
}

// While another program has the TPM: the next connections are taken and never
// answered, and when the queue is full there are no more.
func TestInUse(t *testing.T) {
	storeflag.SetInUseAfter(t, 100*time.Millisecond)
	for _, tcp := range []bool{true, false} {
		for _, full := range []bool{false, true} {
			sw := tpmtest.SWTPM(t, tpmtest.SWConfig{TCP: tcp})
			network, address := sw.Addr()
			t.Run(fmt.Sprintf("%s, queue full: %t", network, full), func(t *testing.T) {
				tpmtest.Dial(t, sw)
				if full {
					fill(t, sw)
				}
				_, err := storeflag.DialSocket(network, address)(t.Context())
				if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "TPM in use") {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

// Who waits gets the TPM when the other program lets it go.
func TestWaitForTPM(t *testing.T) {
	storeflag.SetInUseAfter(t, time.Minute)
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{})
	network, address := sw.Addr()
	letGo := fill(t, sw)
	dialled := make(chan error)
	go func() {
		conn, err := storeflag.DialSocket(network, address)(t.Context())
		if err == nil {
			err = conn.Close()
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

func TestDialEndsWithContext(t *testing.T) {
	storeflag.SetInUseAfter(t, time.Hour)
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
	_, err = storeflag.DialSocket("tcp", l.Addr().String())(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
