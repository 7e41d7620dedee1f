// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/instancekey/instancekey/internal/binding"
)

// ErrBinding: a message cannot be bound to the request's PoP. Nothing was sent.
var ErrBinding = errors.New("transport: cannot bind a message to the PoP")

// maxBoundBody bounds a request body that is read to be bound, in bytes.
const maxBoundBody = 1 << 20

// BindMessage returns a context for the next authenticated request. The PoP of that
// request also vouches for an earlier message exchanged with the same server: its
// "req_hash" claim is the hash of octets, which is the body of that message exactly as it
// was sent. A server that has kept the message can tell whether the same instance sent
// it, and whether it arrived as it was sent. An example is a pushed authorization request
// and the token request that redeems its code.
//
// The claim is the one proposed for the draft, not part of it: base64url of the
// left half of the hash, with the hash function of the PoP's "alg" (as at_hash
// in OpenID Connect Core, section 3.1.3.6). A server that does not know it
// ignores it.
//
// The context is good for one request and its retries. A second request fails with
// [ErrBinding]. So does a request in combined mode, which has no PoP JWT.
func BindMessage(ctx context.Context, octets []byte) context.Context {
	return binding.With(ctx, octets)
}

// boundHash returns the req_hash for a request, "" for none.
func (t *Transport) boundHash(req *http.Request, to *route) (string, error) {
	bound := binding.Of(req.Context())
	switch {
	case bound == nil && (!t.bindBody || to.unattested):
		return "", nil
	case !to.sendsPoP():
		return "", fmt.Errorf("%w: a request to %s has none", ErrBinding, to.identifier)
	case bound == nil:
		body, err := bodyOf(req)
		if err != nil {
			return "", err
		}
		return t.instance.halfHash(body)
	case !bound.Use():
		return "", fmt.Errorf("%w: the context of BindMessage was used before; a message is bound once", ErrBinding)
	default:
		return t.instance.halfHash(bound.Octets)
	}
}

// bodyOf returns a copy of a request's body.
func bodyOf(req *http.Request) ([]byte, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return nil, nil
	}
	if req.GetBody == nil {
		return nil, fmt.Errorf("%w: the request's body can be read only once; set its GetBody", ErrBinding)
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBinding, err)
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, maxBoundBody+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBinding, err)
	}
	if len(content) > maxBoundBody {
		return nil, fmt.Errorf("%w: the request's body has more than %d bytes", ErrBinding, maxBoundBody)
	}
	return content, nil
}

// hashes are the hash functions of JWS algorithms (RFC 7518, section 3.1; for
// EdDSA that of Ed25519).
var hashes = map[string]crypto.Hash{
	"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512, "EdDSA": crypto.SHA512,
	"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512,
	"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512,
}

func (s *signer) halfHash(octets []byte) (string, error) {
	hash, ok := hashes[s.key.Algorithm()]
	if !ok {
		return "", fmt.Errorf("%w: no hash function is known for %s", ErrBinding, s.key.Algorithm())
	}
	h := hash.New()
	h.Write(octets)
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2]), nil
}
