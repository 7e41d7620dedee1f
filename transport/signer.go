// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/internal/turn"
	"github.com/instancekey/instancekey/keystore"
)

// A signer makes JWTs with one key. Unless that key is prompt, it makes one at a time: a
// TPM does not sign two at once, and a JWT whose "iat" was fixed before it waited for its
// turn would be old when it is sent.
type signer struct {
	key   keystore.Key
	now   func() time.Time
	trace *Trace

	// turn is a queue and not a mutex, so that waiting ends with the context. During a
	// turn nothing is called but clock and key. Nil means that several JWTs may be made at
	// once.
	turn *turn.Queue

	ctx       context.Context // of the signature; for whose turn it is
	pop, dpop jose.Signer
}

// newSigner also returns the key's thumbprint. what names the key in errors.
func (t *Transport) newSigner(key keystore.Key, what string) (*signer, string, error) {
	thumbprint, err := keystore.Thumbprint(key.Public())
	if err != nil {
		return nil, "", fmt.Errorf("transport: %s: %w", what, err)
	}
	if err := checkAlgorithm(key); err != nil {
		return nil, "", err
	}
	s := &signer{key: key, now: t.now, trace: t.trace}
	if !isPrompt(key) {
		s.turn = new(turn.Queue)
		// A JWS header is made once, so that what signs has to be told each context.
		key = turnKey{key, s}
	}
	own := keystore.SigningKey(context.Background(), key)
	if s.pop, err = jose.NewSigner(own, new(jose.SignerOptions).WithType(typePoP)); err != nil {
		return nil, "", fmt.Errorf("transport: %s: %w", what, err)
	}
	if s.dpop, err = jose.NewSigner(own, (&jose.SignerOptions{EmbedJWK: true}).WithType(typeDPoP)); err != nil {
		return nil, "", fmt.Errorf("transport: %s: %w", what, err)
	}
	return s, thumbprint, nil
}

// checkAlgorithm refuses a key that does not sign with an asymmetric algorithm
// (draft, "Client Attestation PoP JWT").
func checkAlgorithm(key keystore.Key) error {
	if alg := key.Algorithm(); alg == "" || alg == "none" || strings.HasPrefix(alg, "HS") {
		return fmt.Errorf("transport: a key with algorithm %.20q cannot prove possession: it must be an asymmetric one", alg)
	}
	return nil
}

// isPrompt reports whether the key is one of package keystore's whose private key is in
// memory, so that its signature waits for nothing. Where many goroutines use one, a turn
// would cost each signature the way to another processor, and leave all but one idle.
func isPrompt(key keystore.Key) bool {
	k, ok := key.(interface{ IsPrompt() bool })
	return ok && k.IsPrompt()
}

// turnKey signs with the context of whose turn it is.
type turnKey struct {
	keystore.Key
	signer *signer
}

func (k turnKey) Sign(_ context.Context, signingInput []byte) ([]byte, error) {
	return k.Key.Sign(k.signer.ctx, signingInput)
}

// sign makes a JWT of that type. The claims are made once it is this JWT's turn.
func (s *signer) sign(ctx context.Context, typ jose.ContentType, claims func(now time.Time) ([]byte, error)) (string, error) {
	token, event, err := s.signUntraced(ctx, typ, claims)
	if !event.Start.IsZero() {
		s.trace.signature(ctx, event)
	}
	return token, err
}

// signUntraced is sign, and leaves it to the caller to call the hook, unless the event is
// zero, since the turn has not come.
func (s *signer) signUntraced(ctx context.Context, typ jose.ContentType, claims func(now time.Time) ([]byte, error)) (token string, event TraceEvent, err error) {
	queued := time.Now()
	wanted, ahead := keystore.Background(ctx)
	switch {
	case s.turn == nil:
		err = ctx.Err()
	case ahead:
		err = s.turn.TakeInBackground(ctx, context.Background(), wanted)
	default:
		err = s.turn.Take(ctx, context.Background())
	}
	if err != nil {
		return "", TraceEvent{}, err
	}
	start := time.Now()
	token, err = s.signNow(ctx, typ, claims)
	event = TraceEvent{Start: start, Duration: time.Since(start), Waited: start.Sub(queued), Kind: string(typ), Ahead: ahead, Err: err}
	return token, event, err
}

// signNow is this JWT's turn, if there are turns, which ends with it.
func (s *signer) signNow(ctx context.Context, typ jose.ContentType, claims func(now time.Time) ([]byte, error)) (string, error) {
	if s.turn != nil {
		s.ctx = ctx
		defer func() {
			s.ctx = nil
			s.turn.Give()
		}()
	}
	payload, err := claims(s.now())
	if err != nil {
		return "", err
	}
	by := s.pop
	if typ == typeDPoP {
		by = s.dpop
	}
	signed, err := by.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
