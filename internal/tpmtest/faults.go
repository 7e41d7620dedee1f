// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Faults is a Device that makes things go wrong on the way to another. Safe for concurrent use.
type Faults struct {
	t      testing.TB
	device Device

	mu     sync.Mutex
	script []*Injection
}

// Fault is one thing that goes wrong. Exactly what happens to the command it hits:
//
//  1. With Executed it is passed on to the device first.
//  2. With Block it waits for Release, or the end of the test.
//  3. It gets Err, or else the error response RC, or else Answer's bytes. If all three are left out, it gets the
//     device's own answer: a delay only.
type Fault struct {
	Command tpm2.TPMCC // hits this command only; 0 = any
	Dial    bool       // hits the opening of the device instead: Err, Block
	Skip    int        // lets so many pass first
	Times   int        // hits so many in a row; 0 = one, negative = all
	Lost    bool       // the connection fails with Err from then on; a new one does not

	Executed bool
	Block    bool

	Err    error
	RC     tpm2.TPMRC
	Answer func(real []byte) []byte // real is nil without Executed
}

// Injection is a Fault in place.
type Injection struct {
	fault Fault

	skip, left  int // guarded by Faults.mu
	fired       atomic.Int64
	blocked     chan struct{}
	blockedOnce sync.Once
	release     chan struct{}
	releaseOnce sync.Once
}

// Inject puts Faults before d: none until Add. At the end of the test everything that is blocked is released.
func Inject(t testing.TB, d Device) *Faults {
	f := &Faults{t: t, device: d}
	t.Cleanup(f.Clear)
	return f
}

// Add appends to the script. If several faults fit a command, the earliest added one that is not used up hits it; only
// that one counts it.
func (f *Faults) Add(fault Fault) *Injection {
	f.t.Helper()
	if fault.Lost && fault.Err == nil {
		f.t.Fatal("tpmtest: a Fault with Lost needs an Err")
	}
	in := &Injection{
		fault: fault, skip: fault.Skip, left: fault.Times,
		blocked: make(chan struct{}), release: make(chan struct{}),
	}
	if in.left == 0 {
		in.left = 1
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = append(f.script, in)
	return in
}

// Clear empties the script and releases what is blocked.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, in := range f.script {
		in.Release()
	}
	f.script = nil
}

// Fired returns how many commands it has hit.
func (in *Injection) Fired() int { return int(in.fired.Load()) }

// Blocked is closed once a command waits for Release.
func (in *Injection) Blocked() <-chan struct{} { return in.blocked }

// Release lets the blocked command go on, and those that would block later. It may be called more than once.
func (in *Injection) Release() { in.releaseOnce.Do(func() { close(in.release) }) }

// next returns the injection that hits this command, if any.
func (f *Faults) next(dial bool, code tpm2.TPMCC) *Injection {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, in := range f.script {
		if in.left == 0 || in.fault.Dial != dial || in.fault.Command != 0 && in.fault.Command != code {
			continue
		}
		if in.skip > 0 {
			in.skip--
			return nil
		}
		in.left-- // from a negative number it never gets to 0
		in.fired.Add(1)
		return in
	}
	return nil
}

// wait blocks if the fault says so, until Release or the end of ctx.
func (in *Injection) wait(ctx context.Context) error {
	if !in.fault.Block {
		return nil
	}
	in.blockedOnce.Do(func() { close(in.blocked) })
	select {
	case <-in.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Dial implements Device.
func (f *Faults) Dial(ctx context.Context) (transport.TPMCloser, error) {
	if in := f.next(true, 0); in != nil {
		if err := in.wait(ctx); err != nil {
			return nil, err
		}
		if in.fault.Err != nil {
			return nil, in.fault.Err
		}
	}
	conn, err := f.device.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return &faultyConn{TPMCloser: conn, faults: f}, nil
}

type faultyConn struct {
	transport.TPMCloser
	faults *Faults

	mu   sync.Mutex
	lost error
}

func (c *faultyConn) Send(cmd []byte) ([]byte, error) {
	c.mu.Lock()
	lost := c.lost
	c.mu.Unlock()
	if lost != nil {
		return nil, lost
	}
	in := c.faults.next(false, commandCode(cmd))
	if in == nil {
		return c.TPMCloser.Send(cmd)
	}
	return c.fail(in, cmd)
}

func (c *faultyConn) fail(in *Injection, cmd []byte) ([]byte, error) {
	var real []byte
	passOn := func() (err error) {
		real, err = c.TPMCloser.Send(cmd)
		return err
	}
	if in.fault.Executed {
		if err := passOn(); err != nil {
			return nil, err
		}
	}
	in.wait(context.Background())

	if in.fault.Lost {
		c.mu.Lock()
		c.lost = in.fault.Err
		c.mu.Unlock()
	}
	switch {
	case in.fault.Err != nil:
		return nil, in.fault.Err
	case in.fault.RC != 0:
		return frame(uint32(in.fault.RC)), nil
	case in.fault.Answer != nil:
		return in.fault.Answer(real), nil
	}
	if !in.fault.Executed {
		if err := passOn(); err != nil {
			return nil, err
		}
	}
	return real, nil
}
