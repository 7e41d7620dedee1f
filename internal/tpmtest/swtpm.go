// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

// SWConfig chooses how swtpm runs. The zero value is a Unix socket and a TPM that is started up.
type SWConfig struct {
	TCP        bool // a port of 127.0.0.1 instead of a Unix socket
	NotStarted bool // leave out TPM2_Startup, at every start

	// State is the content of a tpm2-00.permall to begin with, as a TPM that has made keys before. nil: a new TPM.
	State []byte

	EKCertificates bool // with endorsement keys and their certificates, see SW.CA; takes a second more
}

// SW is swtpm in a child process. It serves one connection at a time: a second one can be dialled, but gets no answer
// until the first is closed.
type SW struct {
	t       testing.TB
	cfg     SWConfig
	network string
	addr    string
	dir     string
	ca      string // where the CA's certificates are, if there is one

	mu     sync.Mutex
	cmd    *exec.Cmd
	output *bytes.Buffer
	exited chan struct{}
}

// startTimeout is for a machine under load; swtpm takes some 50 ms.
const startTimeout = 30 * time.Second

// SWTPM starts swtpm with an empty state, and kills it at the end of the test.
func SWTPM(t testing.TB, cfg SWConfig) *SW {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		unavailable(t, "swtpm is not installed (Debian: apt-get install swtpm)")
	}
	s := &SW{t: t, cfg: cfg}
	s.reset()
	t.Cleanup(func() { s.kill() })
	if !cfg.TCP {
		s.network, s.addr = "unix", socketPath(t)
		s.start()
		return s
	}

	// Between finding a free port and swtpm's taking it, somebody else may.
	s.network = "tcp"
	var err error
	for range 3 {
		s.addr = freePort(t)
		if err = s.tryStart(); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

// Addr returns where swtpm listens, in the terms of net.Dial.
func (s *SW) Addr() (network, address string) { return s.network, s.addr }

// Dial implements Device.
func (s *SW) Dial(ctx context.Context) (transport.TPMCloser, error) {
	conn, err := new(net.Dialer).DialContext(ctx, s.network, s.addr)
	if err != nil {
		return nil, err
	}
	return socketConn{conn}, nil
}

// Restart is a power cut: swtpm is killed, and started on the state it left behind, at the same address. For an orderly
// reboot send TPM2_Shutdown first. Open connections break.
func (s *SW) Restart() {
	s.t.Helper()
	s.kill()
	s.start()
}

// Manufacture puts another TPM at the same address: a power cut, and all state lost.
func (s *SW) Manufacture() {
	s.t.Helper()
	s.kill()
	s.reset()
	s.start()
}

// reset gives it an empty state, or the one that it comes with.
func (s *SW) reset() {
	s.t.Helper()
	s.dir = s.t.TempDir()
	if s.cfg.EKCertificates {
		s.manufacture(s.dir)
	}
	if s.cfg.State == nil {
		return
	}
	if err := os.WriteFile(filepath.Join(s.dir, "tpm2-00.permall"), s.cfg.State, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Stop kills swtpm. Until Restart nobody answers at its address.
func (s *SW) Stop() { s.kill() }

func (s *SW) start() {
	s.t.Helper()
	if err := s.tryStart(); err != nil {
		s.t.Fatal(err)
	}
}

// tryStart returns when swtpm accepts connections.
func (s *SW) tryStart() error {
	args := []string{"socket", "--tpm2", "--tpmstate", "dir=" + s.dir}
	if s.cfg.TCP {
		_, port, err := net.SplitHostPort(s.addr)
		if err != nil {
			return err
		}
		args = append(args, "--server", "type=tcp,bindaddr=127.0.0.1,port="+port)
	} else {
		args = append(args, "--server", "type=unixio,path="+s.addr)
	}
	if s.cfg.NotStarted {
		args = append(args, "--flags", "not-need-init")
	} else {
		args = append(args, "--flags", "not-need-init,startup-clear")
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.output, s.exited = new(bytes.Buffer), make(chan struct{})
	s.cmd = exec.Command("swtpm", args...)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	dieWithParent(s.cmd)
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("tpmtest: swtpm: %w", err)
	}
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait() // killed, or its output says why
		close(exited)
	}(s.cmd, s.exited)
	return s.awaitListening()
}

// awaitListening tries connections, since swtpm has no other sign that it listens. A connection that sends nothing does
// not change the TPM.
func (s *SW) awaitListening() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := s.Dial(ctx)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-again.C:
		case <-s.exited:
			return fmt.Errorf("tpmtest: swtpm ended: %s", bytes.TrimSpace(s.output.Bytes()))
		case <-ctx.Done():
			return fmt.Errorf("tpmtest: swtpm does not listen: %w", err)
		}
	}
}

func (s *SW) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.cmd.Process.Kill() // an error means that it has ended
	<-s.exited
	if s.network == "unix" {
		os.Remove(s.addr) // else a dial finds the dead socket before swtpm replaces it
	}
	s.cmd = nil
}

// socketPath returns a path that is free and short enough for a socket: t.TempDir contains the test's name, and a socket
// address has room for some 100 bytes.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "sock")
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}
