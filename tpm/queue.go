// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/turn"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// longestCommand is more than any TPM takes for a command: 15 seconds, to make an
// RSA key, were reported.
const longestCommand = time.Minute

// device is one TPM and the queue before it. All keys of a Store share it.
//
// A TPM does one command at a time and none can be called back. So there is one
// slot: what has it runs to the end of its command in the worker, a goroutine that
// lives as long as the device, even when its caller has stopped waiting, and then
// gives it back. What nobody waits for (keystore.InBackground) gets it last, whichever
// of the keys it is for.
type device struct {
	dial      func(context.Context) (transport.TPMCloser, error) // nil: the connection was handed in
	exclusive bool
	ownerAuth []byte
	canAskPIN bool

	slot    turn.Queue
	life    context.Context // ends with close
	endLife context.CancelFunc
	work    chan func() // to the worker; only the holder of the slot sends
	once    sync.Once
	opened  atomic.Pointer[connection] // what interrupt closes
	running atomic.Pointer[call]       // in the worker; written by the holder of the slot

	// What follows belongs to the holder of the slot.

	tpm     transport.TPM   // nil: not connected
	closer  io.Closer       // nil: not connected, or not ours to close
	broken  error           // the first error of the connection, which is not used after it
	cleanup bool            // something of before may still be in the TPM
	dialing context.Context // Dial ends with it: life, until close itself has to dial
	// tidying is the context of commands that take back what was done, which
	// must not be skipped because the caller has gone.
	tidying context.Context
	held
}

func newDevice(cfg Config) *device {
	life, endLife := context.WithCancel(context.Background())
	d := &device{
		dial:      cfg.Dial,
		exclusive: cfg.Exclusive,
		ownerAuth: cfg.OwnerAuth,
		canAskPIN: cfg.PIN != nil,
		life:      life,
		endLife:   endLife,
		work:      make(chan func()),
		tpm:       cfg.TPM,
		cleanup:   cfg.Exclusive && cfg.TPM != nil,
		tidying:   context.Background(),
		dialing:   life,
	}
	if network, address, ok := socketAddress(cfg.Device); ok {
		d.exclusive = true
		d.dial = func(ctx context.Context) (transport.TPMCloser, error) { return dialSocket(ctx, network, address) }
	} else if cfg.Dial == nil && cfg.TPM == nil {
		d.dial = dialDevice(cfg.Device)
	}
	// One goroutine for all: the stack of a new one would have to grow with
	// every command.
	go func() {
		for f := range d.work {
			f()
		}
	}()
	return d
}

// run waits for the slot and calls f with it. It returns soon after ctx ends,
// or after close when it is still waiting. f is called again, once, when what it
// needs in the TPM or the connection was lost; it must allow that. The secrets
// are overwritten with zeros when f is not called any more, which may be after
// run has returned.
func run[T any](ctx context.Context, d *device, f func(*call) (T, error), secrets ...[]byte) (T, error) {
	var result, none T
	done, err := d.run(ctx, func(c *call) (err error) {
		result, err = f(c)
		return err
	}, secrets)
	if !done { // f may still be at it
		return none, err
	}
	return result, err
}

// run is run without a result. It also reports whether f has returned.
func (d *device) run(ctx context.Context, f func(*call) error, secrets [][]byte) (done bool, err error) {
	if err := d.acquire(ctx); err != nil {
		clearAll(secrets)
		return false, err
	}
	c := newCall(ctx, d)
	if ctx.Done() == nil { // nobody can stop waiting
		defer func() { clearAll(secrets); d.slot.Give() }()
		return true, repeat(c, f)
	}
	ended := make(chan error, 1)
	d.work <- func() {
		d.running.Store(c)
		err := repeat(c, f)
		clearAll(secrets)
		d.running.Store(nil)
		d.slot.Give()
		ended <- err
	}
	select {
	case err := <-ended:
		return true, err
	case <-ctx.Done():
		c.deserted.Store(true)
		time.AfterFunc(longestCommand, func() {
			if d.running.Load() == c {
				d.interrupt() // others wait behind it
			}
		})
		if code := tpm2.TPMRC(c.busy.Load()); code != 0 {
			return false, fmt.Errorf("the TPM is busy (%w): %w", code, ctx.Err())
		}
		return false, fmt.Errorf("waiting for the TPM: %w", ctx.Err())
	}
}

func clearAll(secrets [][]byte) {
	for _, secret := range secrets {
		clear(secret)
	}
}

func (d *device) acquire(ctx context.Context) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	var err error
	if wanted, ok := keystore.Background(ctx); ok {
		err = d.slot.TakeInBackground(ctx, d.life, wanted)
	} else {
		err = d.slot.Take(ctx, d.life)
	}
	switch {
	case err == nil:
		return nil
	case d.life.Err() != nil:
		return keystore.ErrClosed
	default:
		return fmt.Errorf("waiting for other commands: %w", err)
	}
}

func repeat(c *call, f func(*call) error) error {
	err := attempt(c, f)
	if err != nil && repeatable(err) && c.ctx.Err() == nil {
		if counted := c.mayRepeat(err); counted != nil {
			return counted
		}
		c.flushHeld()
		err = attempt(c, f)
	}
	return err
}

func attempt(c *call, f func(*call) error) error {
	if err := c.connect(); err != nil {
		return err
	}
	c.flushLeftovers()
	return c.withRecovery(c.checked(f(c)))
}

// checked tells an error for which go-tpm could not parse an answer, or found
// its HMAC wrong.
func (c *call) checked(err error) error {
	if err == nil || understood(err) {
		return err
	}
	if !errors.Is(err, errGarbled) {
		err = fmt.Errorf("%w: %w", errGarbled, err)
	}
	c.broken = &connError{err}
	return c.broken
}

// call is the right to send commands: the slot, with the context of its holder.
// It is the transport that go-tpm's commands are executed on. It holds a context
// because go-tpm's Send takes none.
type call struct {
	ctx context.Context
	*device
	busy     atomic.Uint32 // the busy code that a command was repeated for at last; 0: it was answered
	deserted atomic.Bool   // nobody waits for it any more
	waited   time.Duration // for a TPM that was busy, in all commands

	// mayPin fails for a parent that may get no PIN, while a key of another program is
	// opened; otherwise nil.
	mayPin func(keyfile.Parent) error
}

func newCall(ctx context.Context, d *device) *call { return &call{ctx: ctx, device: d} }

// newTidyingCall is for commands that take back what was done. Others wait
// behind it, and what fails is tried again later.
func newTidyingCall(d *device) *call {
	return &call{ctx: d.tidying, device: d, waited: patience - tidyingPatience}
}

// ready reports whether there is a point in beginning.
func (d *device) ready(ctx context.Context) error {
	if d.life.Err() != nil {
		return keystore.ErrClosed
	}
	return ctx.Err()
}
