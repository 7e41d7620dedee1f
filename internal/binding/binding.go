// SPDX-License-Identifier: Apache-2.0

// Package binding carries the message of transport.BindMessage in a context, for
// package transport, which binds it, and for those who must not.
package binding

import (
	"bytes"
	"context"
	"sync/atomic"
)

// A Message is to be bound to one request.
type Message struct {
	Octets []byte
	used   atomic.Bool
}

type key struct{}

// With returns a context with a message, which is copied.
func With(ctx context.Context, octets []byte) context.Context {
	return context.WithValue(ctx, key{}, &Message{Octets: bytes.Clone(octets)})
}

// Without returns a context without a message: for a request that is made on behalf
// of several callers.
func Without(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, (*Message)(nil))
}

// Of returns the message in ctx, nil if there is none.
func Of(ctx context.Context) *Message {
	m, _ := ctx.Value(key{}).(*Message)
	return m
}

// Use reports whether the message may be bound, which it may once.
func (m *Message) Use() bool { return !m.used.Swap(true) }
