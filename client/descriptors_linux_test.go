// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

const (
	descriptorsOf = "INSTANCEKEY_TEST_DESCRIPTORS" // in the second process: the issuer
	descriptors   = 128
	patience      = 100 * time.Millisecond
	impatient     = 48 // callers
	rounds        = 30 // of each of them
)

// TestDescriptorsLast: in a process with few descriptors, callers with short deadlines
// come again and again for a token, at an endpoint that accepts and never answers. A file
// that has nothing to do with it can be opened all the time.
func TestDescriptorsLast(t *testing.T) {
	if issuer := os.Getenv(descriptorsOf); issuer != "" {
		impatientCallers(t, issuer)
		return
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepted, open, most atomic.Int64
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			if n := open.Add(1); n > most.Load() {
				most.Store(n)
			}
			served.Go(func() {
				_, _ = io.Copy(io.Discard, conn) // until the other side closes it
				conn.Close()
				open.Add(-1)
			})
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	second := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestDescriptorsLast$", "-test.count=1")
	second.Env = append(os.Environ(), descriptorsOf+"=http://"+listener.Addr().String())
	output, err := second.CombinedOutput()
	listener.Close()
	served.Wait()
	if err != nil || !bytes.Contains(output, []byte("every file was opened")) {
		t.Errorf("%v\n%s", err, output)
	}
	if most.Load() > 2 || accepted.Load() == 0 {
		t.Errorf("%d connections open at a time, %d in all, want at most 2 of at least 1", most.Load(), accepted.Load())
	}
}

// impatientCallers is what happens in the second process.
func impatientCallers(t *testing.T, issuer string) {
	limit := syscall.Rlimit{Cur: descriptors, Max: descriptors}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, transporttest.Policy{})
	c := r.client(t, func(cfg *client.Config) {
		cfg.Base, cfg.Clock, cfg.Issuer = new(http.Transport), nil, issuer
		cfg.Metadata = &client.Metadata{Issuer: issuer, TokenEndpoint: issuer + "/token"}
	})
	var opened, failed, calls atomic.Int64
	stop := make(chan struct{})
	var files, callers sync.WaitGroup
	files.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			file, err := os.Open(os.Args[0])
			if err != nil {
				failed.Add(1)
				t.Log(err)
				continue
			}
			file.Close()
			opened.Add(1)
		}
	})
	for range impatient {
		callers.Go(func() {
			for range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				if _, err := c.Token(ctx); err == nil {
					t.Error("a token from nobody")
				}
				cancel()
				calls.Add(1)
			}
		})
	}
	callers.Wait()
	close(stop)
	files.Wait()
	if failed.Load() != 0 || opened.Load() < rounds || calls.Load() != impatient*rounds {
		t.Errorf("%d files were opened and %d not, in %d calls", opened.Load(), failed.Load(), calls.Load())
		return
	}
	fmt.Println("every file was opened")
}
