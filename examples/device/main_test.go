// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// serviceMain is the program as a service of Windows, if this process is to be one.
var serviceMain func()

// TestMain lets a test run the program as a process of its own: this binary,
// told so.
func TestMain(m *testing.M) {
	if os.Getenv("DEVICE_MAIN") != "" {
		main()
	}
	if serviceMain != nil {
		serviceMain()
	}
	os.Exit(m.Run())
}

// TestProcess is the whole program, with a signal that ends it.
func TestProcess(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such signals: TestService")
	}
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(signal.String(), func(t *testing.T) {
			sw := tpmtest.SWTPM(t, tpmtest.SWConfig{})
			network, address := sw.Addr()
			w := newWorld(t)
			w.store = network + ":" + address
			call := make(chan struct{}, 100)
			serve := w.resource.handler
			w.resource.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				serve.ServeHTTP(rw, r)
				if r.URL.Path == "/readings" {
					call <- struct{}{}
				}
			}))
			args := w.args("-every", "1ms") // the last one counts
			cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
			cmd.Env = append(os.Environ(), "DEVICE_MAIN=1")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			for range 3 { // so that the signal comes in the middle of something
				select {
				case <-call:
				case err := <-ended:
					t.Fatalf("%v: %s", err, &stderr)
				}
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("%v: %s", err, &stderr)
			}
			chip{Device: sw}.leftNothing(t)
			w.mu.Lock()
			last := w.last
			w.mu.Unlock()
			if strings.Contains(stderr.String(), last) || strings.Contains(stderr.String(), "time=") {
				t.Error("a token or the time is in the log")
			}
			w.keepsToken()
			if n := w.authServer.count("/token"); n != 1 {
				t.Errorf("%d token requests, want 1", n)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	complete := []string{"-store", "soft", "-state", t.TempDir(), "-issuer", "https://as.example.com", "-client-id", "c", "-attester", "https://a.example.com", "-resource", "https://rs.example.com"}
	for name, args := range map[string][]string{
		"unknown flag":   append(complete[:len(complete):len(complete)], "-x"),
		"argument":       append(complete[:len(complete):len(complete)], "x"),
		"unknown grant":  append(complete[:len(complete):len(complete)], "-grant", "password"),
		"no time at all": append(complete[:len(complete):len(complete)], "-every", "0s"),
		"unknown store":  append(complete[:len(complete):len(complete)], "-store", "x"),
		"no simulator":   append(complete[:len(complete):len(complete)], "-store", "simulator"),
		"no address":     append(complete[:len(complete):len(complete)], "-store", "unix:"),
		"not on Linux":   append(complete[:len(complete):len(complete)], "-store", "tbs"),
		"no resource":    complete[:len(complete)-2],
		"no store":       complete[2:],
		"nothing":        nil,
	} {
		if name == "not on Linux" && runtime.GOOS == "windows" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			var stderr strings.Builder
			if status := run(t.Context(), args, &stderr, sleep); status != statusUsage || stderr.Len() == 0 {
				t.Errorf("status %d: %s", status, &stderr)
			}
		})
	}
	if status := run(t.Context(), []string{"-h"}, new(strings.Builder), sleep); status != statusOK {
		t.Errorf("-h: status %d", status)
	}
}

// TestUnit: the command line in the systemd unit is one that this program takes,
// and its exit statuses are those that are meant there.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("instancekey-device.service")
	if err != nil {
		t.Fatal(err)
	}
	_, line, found := strings.Cut(string(unit), "\nExecStart=/usr/local/bin/instancekey-device ")
	line, _, _ = strings.Cut(line, "\n")
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, flags, inReadme := strings.Cut(string(readme), "\n    DEVICE_FLAGS=")
	flags, _, _ = strings.Cut(flags, "\n")
	if !found || !inReadme || !strings.Contains(string(unit), "\nRestartPreventExitStatus=64 10\n") || statusUsage != 64 || statusKeyLost != 10 {
		t.Fatal("the unit is not as this test knows it")
	}
	line = strings.NewReplacer("$DEVICE_FLAGS", flags, "%S", t.TempDir(), "/dev/tpmrm0", "soft").Replace(line)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // not to run, only to be understood
	var stderr strings.Builder
	if status := run(ctx, strings.Fields(line), &stderr, sleep); status != statusOK {
		t.Errorf("%s: status %d: %s", line, status, &stderr)
	}
}

func TestBackoff(t *testing.T) {
	var tries backoff
	for n := range 1000 {
		most := longestPause
		if n < 9 { // 1 s to 256 s
			most = time.Second << n
		}
		if pause := tries.next(); pause < most/2 || pause > most {
			t.Fatalf("pause %d is %v, want %v to %v", n, pause, most/2, most)
		}
	}
	seen := make(map[time.Duration]bool)
	for range 100 {
		seen[new(backoff).next()] = true
		if d := jitter(time.Minute); d < 54*time.Second || d > 66*time.Second {
			t.Errorf("jitter of a minute: %v", d)
		}
	}
	if len(seen) < 50 {
		t.Errorf("%d different pauses in 100", len(seen))
	}
}

func TestSleep(t *testing.T) {
	if err := sleep(t.Context(), time.Nanosecond); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
