// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
)

// A refreshFile keeps the refresh token in the file -refresh: together with
// what it is bound to, as client.StoredToken writes it, or, if somebody has put
// just the token into the file, that alone.
type refreshFile struct {
	name   string
	bare   bool   // the file has the token alone
	stored bool   // the file has it with what it is bound to
	old    string // the token; "" if there is none yet
	client *client.Client
	turn   chan struct{} // capacity 1: who uses or replaces the token
}

// openRefresh reads the file, which must be there for the refresh_token grant.
func (f *tokenFlags) openRefresh(p *program) (*refreshFile, error) {
	if f.refresh == "" {
		return nil, nil
	}
	r := &refreshFile{name: f.refresh, turn: make(chan struct{}, 1)}
	content, err := readFile(f.refresh)
	if errors.Is(err, fs.ErrNotExist) && f.grant != grantRefresh {
		return r, nil
	}
	if err == nil && !bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		r.bare = true
		p.warnReadable("-refresh", f.refresh) // a stored token that others can read is refused
		r.old, err = readSecret(f.refresh)
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("-refresh: %w", err)}
	}
	r.stored = !r.bare
	return r, nil
}

// bind says whose client's the token is. A stored token of another key is
// refused: sending it would only lose it.
func (r *refreshFile) bind(c *client.Client) error {
	r.client = c
	if r.bare {
		return nil
	}
	stored, err := client.ReadStoredToken(r.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	token, err := c.Adopt(stored)
	if err != nil {
		return err
	}
	r.old = token.RefreshToken
	return nil
}

// use refreshes a token. One at a time: the next refresh may need the refresh
// token that this one brings.
func (r *refreshFile) use(ctx context.Context) (*oauth2.Token, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	sendsOf(ctx).keepSecret(r.old)
	token, err := r.client.Refresh(ctx, r.old)
	if token == nil {
		return nil, err
	}
	// Also together with an error: the old refresh token may be used up.
	if kept := r.write(token); kept != nil {
		err = errors.Join(err, kept)
	}
	return token, err
}

// keep writes the refresh token that has come with another grant, if any.
func (r *refreshFile) keep(token *oauth2.Token) error {
	r.turn <- struct{}{} // held for a write at most
	defer func() { <-r.turn }()
	return r.write(token)
}

func (r *refreshFile) write(token *oauth2.Token) error {
	if token.RefreshToken == "" || token.RefreshToken == r.old {
		return nil
	}
	r.old = token.RefreshToken
	err := r.writeFile(token)
	if err != nil {
		return fmt.Errorf("the new refresh token could not be kept, and the old one may be used up: %w", err)
	}
	return nil
}

func (r *refreshFile) writeFile(token *oauth2.Token) error {
	if r.bare {
		return writeSecret(r.name, token.RefreshToken)
	}
	stored, err := r.client.Bind(token)
	if err != nil {
		return err
	}
	return stored.Write(r.name)
}
