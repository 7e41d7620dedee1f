// SPDX-License-Identifier: Apache-2.0

package keystore

import "context"

type backgroundKey struct{}

// InBackground returns a context for a signature that nobody waits for, such as one that
// is made ahead of its use. A Store whose device does one thing at a time serves others
// first, and asks no user for a PIN: the error then matches [ErrAuth].
//
// When wanted is closed, somebody has begun to wait for the signature, which is then as
// urgent as any other. The Store asks for no PIN even then. A nil channel is never
// closed.
func InBackground(ctx context.Context, wanted <-chan struct{}) context.Context {
	return context.WithValue(ctx, backgroundKey{}, wanted)
}

// Background reports whether [InBackground] has made ctx, and returns the channel that
// InBackground was given. It is for those who write a Store.
func Background(ctx context.Context) (wanted <-chan struct{}, ok bool) {
	wanted, ok = ctx.Value(backgroundKey{}).(<-chan struct{})
	return wanted, ok
}
