// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/keystore"
)

// ErrInUse: the TPM behind a socket is there, but another program is using it. It is the
// cause of an error that matches keystore.ErrUnavailable.
var ErrInUse = errors.New("TPM in use")

// inUseAfter is how long a TPM behind a socket may take to be there for us.
var inUseAfter = 5 * time.Second

// socketAddress returns where the socket of a Config.Device is, in the terms of
// net.Dial.
func socketAddress(device string) (network, address string, ok bool) {
	network, address, ok = strings.Cut(device, ":")
	return network, address, ok && (network == "unix" || network == "tcp")
}

func checkSocket(network, address string) error {
	if address == "" {
		return errors.New("the address is missing")
	}
	if network == "unix" {
		return nil
	}
	_, _, err := net.SplitHostPort(address)
	return err
}

// dialSocket connects to a socket that speaks plain TPM commands. swtpm serves one
// connection at a time. While another program has it, some more connections can be
// made that are never answered, until the queue is full: then a TCP socket does not
// react, and a Unix socket says EAGAIN.
func dialSocket(ctx context.Context, network, address string) (transport.TPMCloser, error) {
	deadline := time.Now().Add(inUseAfter)
	stream, err := connectSocket(ctx, network, address, deadline)
	if err == nil {
		conn := NewConn(stream)
		if err = checkAnswers(ctx, stream, conn, deadline); err == nil {
			return conn, nil
		}
		stream.Close()
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case isTimeout(err):
		return nil, fmt.Errorf("%w: %w: %s is there, but has not answered for %v: stop the other program that has it open",
			keystore.ErrUnavailable, ErrInUse, address, inUseAfter)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: no permission for the TPM: %w: run as its user, or have the socket opened to this one", keystore.ErrUnavailable, err)
	default:
		return nil, fmt.Errorf("%w: no TPM at %s: %w: start it, or check the address", keystore.ErrUnavailable, address, err)
	}
}

// connectSocket tries until the deadline to get a connection.
func connectSocket(ctx context.Context, network, address string, deadline time.Time) (net.Conn, error) {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		stream, err := (&net.Dialer{Deadline: deadline}).DialContext(ctx, network, address)
		if !errors.Is(err, syscall.EAGAIN) || !time.Now().Before(deadline) {
			return stream, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error // EAGAIN is one, too
	return errors.As(err, &timeout) && timeout.Timeout()
}

// checkAnswers waits for the answer to a first command.
func checkAnswers(ctx context.Context, stream net.Conn, conn transport.TPM, deadline time.Time) error {
	if err := stream.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { stream.SetDeadline(time.Unix(1, 0)) }) // the past ends the wait
	_, err := capabilityOf(conn, tpm2.TPMCapTPMProperties, uint32(tpm2.TPMPTManufacturer), 1)
	if !stop() {
		return ctx.Err()
	}
	if err != nil && !errors.As(err, new(tpm2.TPMRC)) { // an answer is an answer, also "not started up"
		return err
	}
	return stream.SetDeadline(time.Time{})
}
