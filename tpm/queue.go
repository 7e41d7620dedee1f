package tpm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/keystore"
)

const (
	// closeTimeout bounds what close does to a TPM that does not answer well.
	closeTimeout = 10 * time.Second

	// longestCommand is more than any TPM takes for a command: some take a minute
	// to make an RSA key.
	longestCommand = 3 * time.Minute
)

// device is one TPM and the queue before it. All keys of a Store share it.
//
// A TPM does one command at a time and none can be called back. So there is one
// slot: what has it runs to the end of its command in the worker, a goroutine that
// lives as long as the device, even when its caller has stopped waiting, and then
// gives it back.
type device struct {
	dial      func(context.Context) (transport.TPMCloser, error) // nil: the connection was handed in
	exclusive bool
	ownerAuth []byte

	slot    chan struct{} // has one element while the slot is taken
	closing chan struct{}
	work    chan func() // to the worker; only the holder of the slot sends
	once    sync.Once

	// What follows belongs to the holder of the slot.

	tpm     transport.TPM // nil: not connected
	closer  io.Closer     // nil: not connected, or not ours to close
	broken  error         // the first error of the connection, which is not used after it
	cleanup bool          // something of before may still be in the TPM
	// tidying is the context of commands that take back what was done, which
	// must not be skipped because the caller has gone.
	tidying context.Context
	held
}

func newDevice(cfg Config) *device {
	d := &device{
		dial:      cfg.Dial,
		exclusive: cfg.Exclusive,
		ownerAuth: cfg.OwnerAuth,
		slot:      make(chan struct{}, 1),
		closing:   make(chan struct{}),
		work:      make(chan func()),
		tpm:       cfg.TPM,
		cleanup:   cfg.Exclusive && cfg.TPM != nil,
		tidying:   context.Background(),
	}
	if cfg.Dial == nil && cfg.TPM == nil {
		d.dial = func(ctx context.Context) (transport.TPMCloser, error) { return openDevice(ctx, cfg.Device) }
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
	var none T
	if err := d.acquire(ctx); err != nil {
		clearAll(secrets)
		return none, err
	}
	c := newCall(ctx, d)
	if ctx.Done() == nil { // nobody can stop waiting
		defer func() { clearAll(secrets); <-d.slot }()
		return repeat(c, f)
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	d.work <- func() {
		value, err := repeat(c, f)
		clearAll(secrets)
		<-d.slot
		done <- result{value, err}
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		if code := tpm2.TPMRC(c.busy.Load()); code != 0 {
			return none, fmt.Errorf("the TPM is busy (%w): %w", code, ctx.Err())
		}
		return none, fmt.Errorf("waiting for the TPM: %w", ctx.Err())
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
	select {
	case d.slot <- struct{}{}:
		return nil
	case <-d.closing:
		return keystore.ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("waiting for other commands: %w", ctx.Err())
	}
}

// close takes the slot for ever and leaves nothing in the TPM. It does not wait
// for a TPM that has ceased to answer; what is left to do is done if it ever does.
func (d *device) close() (err error) {
	d.once.Do(func() {
		close(d.closing)
		closed := make(chan error, 1)
		go func() { closed <- d.shutDown() }()
		select {
		case err = <-closed:
		case <-time.After(longestCommand):
			err = fmt.Errorf("%w: the TPM has not answered a command for %v: restart the device", keystore.ErrUnavailable, longestCommand)
		}
	})
	return err
}

func (d *device) shutDown() error {
	d.slot <- struct{}{}
	close(d.work)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	d.tidying = ctx
	newCall(ctx, d).tidyUp()
	if d.closer == nil {
		return nil
	}
	return d.closer.Close()
}

// tidyUp leaves nothing in the TPM, on a new connection where the old one is lost.
func (c *call) tidyUp() {
	c.flushHeld()
	for range maxFlushes {
		unknown := c.cleanup || c.broken != nil && c.exclusive
		flushedByClosing := c.managed && c.closer != nil
		if flushedByClosing || len(c.leftovers) == 0 && !unknown {
			return
		}
		if c.connect() != nil {
			return
		}
		c.flushLeftovers()
	}
}

func repeat[T any](c *call, f func(*call) (T, error)) (T, error) {
	value, err := attempt(c, f)
	if err != nil && repeatable(err) && c.ctx.Err() == nil {
		c.flushHeld()
		value, err = attempt(c, f)
	}
	return value, err
}

func attempt[T any](c *call, f func(*call) (T, error)) (none T, err error) {
	if err := c.connect(); err != nil {
		return none, err
	}
	c.flushLeftovers()
	value, err := f(c)
	return value, c.withRecovery(c.checked(err))
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
	busy atomic.Uint32 // the busy code that a command was repeated for at last; 0: it was answered
}

func newCall(ctx context.Context, d *device) *call { return &call{ctx: ctx, device: d} }

// connect opens the connection if there is none, or if it is broken.
func (c *call) connect() error {
	if c.broken != nil {
		c.hangUp()
	}
	if c.tpm == nil {
		conn, err := c.dial(c.ctx)
		if err == nil && conn == nil {
			err = errors.New("Config.Dial returned no connection")
		}
		if err != nil {
			return cmp.Or(c.ctx.Err(), error(&dialError{err}))
		}
		c.tpm, c.closer = conn, conn
		c.cleanup = c.exclusive
	}
	if c.cleanup {
		if err := c.checked(c.flushAll()); err != nil {
			return fmt.Errorf("flush what was left in the TPM: %w", err)
		}
		c.cleanup = false
	}
	return nil
}

func (c *call) hangUp() {
	c.broken = nil
	// The TPM may have done what we got no answer to, and made an object that we
	// do not know. Only where no other program is, all can be flushed.
	c.cleanup = c.exclusive
	if c.closer == nil {
		c.flushHeld()
		return
	}
	c.closer.Close() // it is of no use: an error changes nothing
	c.tpm, c.closer = nil, nil
	c.abandonHeld()
}

// ready reports whether there is a point in beginning.
func (d *device) ready(ctx context.Context) error {
	select {
	case <-d.closing:
		return keystore.ErrClosed
	default:
		return ctx.Err()
	}
}
