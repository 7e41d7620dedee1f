// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/keystore"
)

// connect opens the connection if there is none, or if it is broken.
func (c *call) connect() error {
	if c.broken != nil {
		c.hangUp()
	}
	if c.tpm == nil {
		if err := c.open(); err != nil {
			return err
		}
	}
	if c.cleanup {
		if err := c.checked(c.flushAll()); err != nil {
			return fmt.Errorf("flush what was left in the TPM: %w", err)
		}
		c.cleanup = false
	}
	return nil
}

// open opens the connection. Neither the caller's context nor close waits for a
// Dial that heeds its own.
func (c *call) open() error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	defer context.AfterFunc(c.dialing, cancel)()
	conn, err := c.dial(ctx)
	switch {
	case err != nil && c.ctx.Err() != nil:
		return c.ctx.Err()
	case err != nil && c.dialing.Err() != nil:
		return keystore.ErrClosed
	case err != nil:
		return &dialError{err}
	case conn == nil:
		return &dialError{errors.New("Config.Dial returned no connection")}
	}
	opened := &connection{TPMCloser: conn}
	c.tpm, c.closer = opened, opened
	c.opened.Store(opened)
	c.cleanup = c.exclusive
	return nil
}

// connection is one that the Store has opened, and is closed once.
type connection struct {
	transport.TPMCloser
	once sync.Once
	err  error
}

func (c *connection) Close() error {
	c.once.Do(func() { c.err = c.TPMCloser.Close() })
	return c.err
}

// interrupt ends a command that the TPM does not answer, where closing the
// connection can do that.
func (d *device) interrupt() {
	if opened := d.opened.Load(); opened != nil {
		opened.Close() // it is of no use any more
	}
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
	c.opened.Store(nil)
	c.abandonHeld()
}
