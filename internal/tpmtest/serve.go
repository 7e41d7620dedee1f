// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// ServeUnix offers d on a Unix socket that speaks plain TPM commands, until the end of the test, so that other processes
// can share it. Each connection dials d: with a ResourceManager, it is an open file.
//
// A socket has no errno: ENOMEM becomes TPM_RC_OBJECT_MEMORY or TPM_RC_SESSION_MEMORY, any other error closes the
// connection.
func ServeUnix(t testing.TB, d Device) (path string) {
	t.Helper()
	path = socketPath(t)
	listen(t, d, "unix", path)
	return path
}

// ServeTCP is ServeUnix on a port of 127.0.0.1.
func ServeTCP(t testing.TB, d Device) (address string) {
	t.Helper()
	return listen(t, d, "tcp", "127.0.0.1:0")
}

func listen(t testing.TB, d Device, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	s := &server{device: d, conns: make(map[net.Conn]bool)}
	s.running.Go(func() { s.accept(t, l) })
	t.Cleanup(func() {
		l.Close()
		s.closeAll()
		s.running.Wait()
	})
	return l.Addr().String()
}

type server struct {
	device  Device
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]bool
}

func (s *server) accept(t testing.TB, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		if !s.add(conn) {
			conn.Close()
			return
		}
		s.running.Go(func() {
			defer s.remove(conn)
			tpm, err := s.device.Dial(t.Context())
			if err != nil {
				return
			}
			defer tpm.Close()
			serve(conn, tpm)
		})
	}
}

func (s *server) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = true
	return true
}

func (s *server) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	conn.Close()
}

func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for conn := range s.conns {
		conn.Close()
	}
}

func serve(conn net.Conn, tpm transport.TPM) {
	for {
		cmd, err := readFrame(conn)
		if err != nil {
			return
		}
		code := commandCode(cmd)
		rsp, err := tpm.Send(cmd)
		switch {
		case errors.Is(err, syscall.ENOMEM) && code == tpm2.TPMCCStartAuthSession:
			rsp = frame(uint32(tpm2.TPMRCSessionMemory))
		case errors.Is(err, syscall.ENOMEM):
			rsp = frame(uint32(tpm2.TPMRCObjectMemory))
		case err != nil:
			return
		}
		if _, err := conn.Write(rsp); err != nil {
			return
		}
	}
}

// relayVariable makes a test binary that imports this package a relay between its standard streams and a socket.
const relayVariable = "TPMTEST_RELAY"

func init() {
	network, addr, ok := strings.Cut(os.Getenv(relayVariable), ",")
	if !ok {
		return
	}
	conn, err := net.Dial(network, addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tpmtest relay:", err)
		os.Exit(1)
	}
	go io.Copy(os.Stdout, conn)
	io.Copy(conn, os.Stdin)
	os.Exit(0)
}

// TCTI names a socket with plain TPM commands (of ServeUnix, or SW.Addr) in the way of tpm2-tss, for the environment
// variables TPM2TOOLS_TCTI and TPM2OPENSSL_TCTI. tpm2-tss has no TCTI for such a socket, so its "cmd" TCTI runs this
// test binary as a relay.
func TCTI(t testing.TB, network, addr string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatalf("tpmtest: %v", err)
	}
	return fmt.Sprintf("cmd:%s='%s,%s' exec '%s'", relayVariable, network, addr, exe)
}

// Tool runs one of tpm2-tools on a TCTI, and returns its standard output. It fails the test if the program fails, and
// skips it if tpm2-tools is not installed.
func Tool(t testing.TB, tcti, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		unavailable(t, name+" is not installed (Debian: apt-get install tpm2-tools)")
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI="+tcti)
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}
