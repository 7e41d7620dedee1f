// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/instancekey/instancekey/client"
)

// asService is this binary's first argument where it is the program, as a service. The
// address of the TPM follows: a service has an environment of its own.
const asService = "as-service"

func init() {
	if len(os.Args) < 3 || os.Args[1] != asService {
		return
	}
	os.Setenv("TBS_ADDRESS", os.Args[2])
	os.Args = slices.Delete(os.Args, 1, 3)
	isWindowsService = func() (bool, error) { return true, nil }
	serviceMain = main
}

// TestService is the whole program under the service control manager: it starts, calls
// the resource, is stopped in the middle of that, and leaves its key and its token.
func TestService(t *testing.T) {
	if os.Getenv("TPM_TBS") == "" {
		t.Skip("TPM_TBS is not set: this machine gets no services of tests")
	}
	manager, err := mgr.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Disconnect()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{"soft", "tbs"} {
		t.Run(store, func(t *testing.T) {
			w := newWorld(t)
			w.store = store
			call := make(chan struct{}, 100)
			serve := w.resource.handler
			w.resource.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				serve.ServeHTTP(rw, r)
				if r.URL.Path == "/readings" {
					call <- struct{}{}
				}
			}))
			name := "instancekey-test-" + store
			args := append([]string{asService, os.Getenv("TBS_ADDRESS")}, w.args("-every", "1ms")...)
			service, err := manager.CreateService(name, program, mgr.Config{StartType: mgr.StartManual}, args...)
			if err != nil {
				t.Fatal(err)
			}
			defer service.Close()
			defer service.Delete()
			for range 2 { // the second start finds what the first has left
				if err := service.Start(); err != nil {
					t.Fatal(err)
				}
				for range 3 { // so that it is stopped in the middle of something
					select {
					case <-call:
					case <-time.After(time.Minute):
						status, err := service.Query()
						t.Fatalf("no call: %+v, %v", status, err)
					}
				}
				if status, err := service.Query(); err != nil || status.State != svc.Running {
					t.Errorf("while it calls: %+v, %v", status, err)
				}
				if _, err := service.Control(svc.Stop); err != nil {
					t.Fatal(err)
				}
				if status := stopped(t, service); status.Win32ExitCode != 0 || status.ServiceSpecificExitCode != 0 {
					t.Errorf("it has ended with %+v", status)
				}
				w.keepsToken()
			}
			if keys, err := filepath.Glob(filepath.Join(w.state, "keys", "*.pem")); err != nil || len(keys) != 1 {
				t.Errorf("keys %q, %v", keys, err)
			}
			if n, m := w.authServer.count("/token"), w.attester.count("/client-attestation"); n != 1 || m != 1 || w.instances() != 1 {
				t.Errorf("%d tokens, %d attestations, %d keys, want 1 each", n, m, w.instances())
			}
		})
	}
	t.Run("wrong flags", func(t *testing.T) {
		service, err := manager.CreateService("instancekey-test-flags", program, mgr.Config{StartType: mgr.StartManual}, asService, "", "-store", "soft")
		if err != nil {
			t.Fatal(err)
		}
		defer service.Close()
		defer service.Delete()
		// To Wine, a start that has ended before it could look is an error.
		err = service.Start()
		if status := stopped(t, service); status.ServiceSpecificExitCode != statusUsage {
			t.Errorf("it has ended with %+v (%v), want %d", status, err, statusUsage)
		}
	})
}

// stopped waits for the end of a service.
func stopped(t *testing.T, service *mgr.Service) svc.Status {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		status, err := service.Query()
		if err != nil {
			t.Fatal(err)
		}
		if status.State == svc.Stopped {
			return status
		}
		if time.Since(began) > stopWithin {
			t.Fatalf("it does not end: %+v", status)
		}
	}
}

// TestServiceReports: what the service control manager is told, in order, and that the
// program has ended before it hears so.
func TestServiceReports(t *testing.T) {
	for cmd, states := range map[svc.Cmd][]svc.State{
		svc.Stop:        {svc.StartPending, svc.Running, svc.StopPending},
		svc.Shutdown:    {svc.StartPending, svc.Running, svc.StopPending},
		svc.Interrogate: {svc.StartPending, svc.Running, svc.Running},
		0:               {svc.StartPending, svc.Running},
	} {
		for _, want := range []int{statusOK, statusKeyLost, statusUsage} {
			t.Run(fmt.Sprint(cmd, want), func(t *testing.T) {
				end, hasEnded := make(chan struct{}), false
				s := &service{run: func(ctx context.Context, log io.Writer) int {
					if log == io.Discard {
						t.Error("there is no event log")
					}
					select {
					case <-ctx.Done():
					case <-end:
					}
					hasEnded = true
					return want
				}}
				requests, changes := make(chan svc.ChangeRequest), make(chan svc.Status, 10)
				type result struct {
					isOwn bool
					code  uint32
				}
				done := make(chan result)
				go func() {
					isOwn, code := s.Execute([]string{"instancekey-test"}, requests, changes)
					done <- result{isOwn, code}
				}()
				if cmd != 0 {
					requests <- svc.ChangeRequest{Cmd: cmd, CurrentStatus: svc.Status{State: svc.Running}}
				}
				if cmd == 0 || cmd == svc.Interrogate {
					end <- struct{}{}
				}
				if got := <-done; got != (result{true, uint32(want)}) || s.status != want || !hasEnded {
					t.Errorf("%+v, status %d, ended: %t, want %d", got, s.status, hasEnded, want)
				}
				close(changes)
				var got []svc.State
				for change := range changes {
					got = append(got, change.State)
				}
				if !slices.Equal(got, states) {
					t.Errorf("states %v, want %v", got, states)
				}
			})
		}
	}
}

// heard is a log in memory.
type heard struct{ events []string }

func (h *heard) add(level string, id uint32, text string) error {
	h.events = append(h.events, fmt.Sprint(level, id, " ", text))
	return nil
}
func (h *heard) Close() error                      { return nil }
func (h *heard) Info(id uint32, text string) error { return h.add("info", id, text) }
func (h *heard) Warning(id uint32, text string) error {
	return h.add("warning", id, text)
}
func (h *heard) Error(id uint32, text string) error { return h.add("error", id, text) }

// TestEvents: each line of the log is an event of its level.
func TestEvents(t *testing.T) {
	h := new(heard)
	log, _ := newLogger(events{h}, -10)
	log.Debug("one")
	log.Info("two", "x", "level=ERROR")
	log.Warn("three", "error", "all\nwrong")
	log.Error("four")
	fmt.Fprintf(events{h}, "device: -store is missing\n")
	want := []string{
		"info1 level=DEBUG msg=one\n", `info1 level=INFO msg=two x="level=ERROR"` + "\n",
		`warning2 level=WARN msg=three error="all\nwrong"` + "\n", "error3 level=ERROR msg=four\n", "error3 device: -store is missing\n",
	}
	if !slices.Equal(h.events, want) {
		t.Errorf("events %q, want %q", h.events, want)
	}
}

// TestServiceWithoutTPM: what the log says when Windows' TPM service is stopped is what
// is to be done.
func TestServiceWithoutTPM(t *testing.T) {
	if os.Getenv("TPM_TBS") == "" {
		t.Skip("TPM_TBS is not set: this machine's TPM is not for tests")
	}
	t.Setenv("TBS_RESULT", "80284008") // TBS_E_SERVICE_NOT_RUNNING
	w := newWorld(t)
	w.store = "tbs"
	d := w.start(w.args()...)
	d.fails(1)
	d.says(1, "level=WARN", "no key store", "sc.exe start tbs", "again_in=")
	os.Unsetenv("TBS_RESULT")
	d.calls()
	d.terminates()
	if stored, err := client.ReadStoredToken(filepath.Join(w.state, "token.json")); err != nil || !strings.Contains(stored.String(), w.authServer.URL) {
		t.Errorf("%v, %v", stored, err)
	}
}
