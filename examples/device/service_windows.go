// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/debug"
	"golang.org/x/sys/windows/svc/eventlog"

	"github.com/instancekey/instancekey/tpm"
)

// stopWithin is how long the service control manager is asked to wait for the end: for a
// command of the TPM that is under way.
const stopWithin = 30 * time.Second

// isWindowsService is another one in tests: Wine's services are in a session of users.
var isWindowsService = svc.IsWindowsService

// runService runs the program under Windows' service control manager, if that has
// started it. The command line is the service's binPath.
func runService(args []string) (status int, isService bool) {
	if is, err := isWindowsService(); err != nil || !is {
		return statusOK, false
	}
	s := &service{run: func(ctx context.Context, to io.Writer) int { return run(ctx, args, to, sleep) }}
	if err := svc.Run("", s); err != nil { // "": a process has one service, which the manager names
		return statusFailed, true
	}
	return s.status, true
}

// A service tells the service control manager how the program is.
type service struct {
	run    func(ctx context.Context, log io.Writer) (status int)
	status int // when it has ended
}

// Execute implements svc.Handler. The first argument is the service's name, by which it
// writes to the event log.
//
// The manager starts a service again, if it was told to, that ends without a word, and
// none that has reported its end, with whatever status.
func (s *service) Execute(args []string, requests <-chan svc.ChangeRequest, changes chan<- svc.Status) (isOwnCode bool, code uint32) {
	const accepted = svc.AcceptStop | svc.AcceptShutdown
	changes <- svc.Status{State: svc.StartPending}
	var log io.Writer = io.Discard // a device does not stop for want of a log
	if to, err := eventlog.Open(args[0]); err == nil {
		defer to.Close()
		log = events{to}
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan int, 1)
	go func() { ended <- s.run(ctx, log) }()
	changes <- svc.Status{State: svc.Running, Accepts: accepted}
	for {
		select {
		case s.status = <-ended:
			if s.status == statusFailed {
				os.Exit(s.status)
			}
			return true, uint32(s.status)
		case request := <-requests:
			switch request.Cmd {
			case svc.Interrogate:
				changes <- request.CurrentStatus
			case svc.Stop, svc.Shutdown:
				changes <- svc.Status{State: svc.StopPending, WaitHint: uint32(stopWithin / time.Millisecond)}
				stop()
			}
		}
	}
}

// events write each line of the log as an event of its level.
type events struct{ to debug.Log }

// The numbers of the events. They mean nothing more than the level.
const (
	eventInfo    = 1
	eventWarning = 2
	eventError   = 3
)

// Write implements io.Writer. A text without a level is what is wrong with the flags.
func (e events) Write(text []byte) (int, error) {
	level, _, _ := bytes.Cut(text, []byte(" "))
	var err error
	switch string(level) {
	case "level=DEBUG", "level=INFO":
		err = e.to.Info(eventInfo, string(text))
	case "level=WARN":
		err = e.to.Warning(eventWarning, string(text))
	default:
		err = e.to.Error(eventError, string(text))
	}
	return len(text), err
}

func bootLog(ctx context.Context) ([]byte, error) { return tpm.WindowsEventLog(ctx) }

const adviceOwner = "if files below -state are another user's, somebody has run this program by hand: give them back (icacls /setowner, as administrator)"
