// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"fmt"
	"time"

	"github.com/instancekey/instancekey/keystore"
)

// closeTimeout bounds what close does to a TPM that does not answer well.
const closeTimeout = 10 * time.Second

// close takes the slot for ever and leaves nothing in the TPM. It does not wait
// for a TPM that has ceased to answer; what is left to do is done if it ever does.
func (d *device) close() (err error) {
	d.once.Do(func() {
		d.endLife()
		closed := make(chan error, 1)
		go func() { closed <- d.shutDown() }()
		wait := longestCommand
		if c := d.running.Load(); c != nil && c.deserted.Load() {
			wait = closeTimeout
		}
		select {
		case err = <-closed:
			return
		case <-time.After(wait):
			d.interrupt()
		}
		select {
		case err = <-closed:
		case <-time.After(closeTimeout):
			err = fmt.Errorf("%w: the TPM does not answer: restart the device", keystore.ErrUnavailable)
		}
	})
	return err
}

func (d *device) shutDown() error {
	_ = d.slot.Take(context.Background(), context.Background()) // neither ends
	close(d.work)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	d.tidying, d.dialing = ctx, ctx
	left := newCall(ctx, d).tidyUp()
	if d.closer != nil {
		if err := d.closer.Close(); err != nil {
			return err
		}
	}
	if left > 0 {
		return fmt.Errorf("%w: %d objects or sessions are left in the TPM: they take room there until it is restarted, or until Config.Exclusive flushes them", keystore.ErrUnavailable, left)
	}
	return nil
}

// tidyUp leaves nothing in the TPM, on a new connection where the old one is lost.
// It returns how many objects and sessions are left in it, as far as is known.
func (c *call) tidyUp() (left int) {
	c.forgetPINs()
	c.flushHeld()
	for range maxFlushes {
		unknown := c.cleanup || c.broken != nil && c.exclusive
		flushedByClosing := c.managed && c.closer != nil
		if flushedByClosing {
			return 0
		}
		if len(c.leftovers) == 0 && !unknown {
			return c.lost
		}
		if c.connect() != nil {
			break
		}
		c.flushLeftovers()
	}
	return c.lost + len(c.leftovers)
}
