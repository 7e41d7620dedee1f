package storeflag

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// ErrInUse: the TPM behind a socket is there, but another program has it.
var ErrInUse = errors.New("TPM in use")

// inUseAfter is how long a TPM behind a socket may take to be there for us.
var inUseAfter = 5 * time.Second

// dialSocket returns a tpm.Config.Dial for a socket that speaks plain TPM
// commands. swtpm serves one connection at a time. While another program has it,
// some more connections can be made that are never answered, until the queue is
// full: then a TCP socket does not react, and a Unix socket says EAGAIN.
func dialSocket(network, address string) func(context.Context) (transport.TPMCloser, error) {
	return func(ctx context.Context) (transport.TPMCloser, error) {
		deadline := time.Now().Add(inUseAfter)
		conn, err := connect(ctx, network, address, deadline)
		if err == nil {
			tpmConn := tpm.NewConn(conn)
			if err = checkAnswers(ctx, conn, tpmConn, deadline); err == nil {
				return tpmConn, nil
			}
			conn.Close()
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case isTimeout(err):
			return nil, fmt.Errorf("%w: %w: %s is there, but has not answered for %v; stop the other program that has it open",
				keystore.ErrUnavailable, ErrInUse, address, inUseAfter)
		default:
			return nil, fmt.Errorf("%w: no TPM at %s: %w: start it, or check -store", keystore.ErrUnavailable, address, err)
		}
	}
}

// connect tries until the deadline to get a connection.
func connect(ctx context.Context, network, address string, deadline time.Time) (net.Conn, error) {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := (&net.Dialer{Deadline: deadline}).DialContext(ctx, network, address)
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// checkAnswers waits for the answer to a first command.
func checkAnswers(ctx context.Context, conn net.Conn, tpmConn transport.TPM, deadline time.Time) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) // the past ends the wait
	_, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTManufacturer), PropertyCount: 1}.Execute(tpmConn)
	if !stop() {
		return ctx.Err()
	}
	if err != nil && !errors.As(err, new(tpm2.TPMRC)) { // an answer is an answer, also "not started up"
		return err
	}
	return conn.SetDeadline(time.Time{})
}
