package authserver

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

const (
	refreshLifetime = 30 * 24 * time.Hour
	refreshCapacity = 100_000 // beyond it the oldest goes
)

// A binding is whom a refresh token belongs to: the Client Instance, and not
// just the client (section 10.3).
type binding struct {
	clientID   string
	thumbprint string // of the Client Instance Key
}

type refreshToken struct {
	holder  binding
	scope   []string
	expires time.Time
}

// refreshTokens are kept by digest: who reads this memory learns no token.
type refreshTokens struct {
	now func() time.Time

	mu     sync.Mutex
	tokens map[[sha256.Size]byte]refreshToken
	queue  [][sha256.Size]byte // oldest first; those already rotated away included
}

func newRefreshTokens(now func() time.Time) *refreshTokens {
	return &refreshTokens{now: now, tokens: make(map[[sha256.Size]byte]refreshToken)}
}

// issue makes a new refresh token.
func (t *refreshTokens) issue(holder binding, scope []string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.issueLocked(holder, scope)
}

func (t *refreshTokens) issueLocked(holder binding, scope []string) string {
	if len(t.queue) >= refreshCapacity {
		delete(t.tokens, t.queue[0])
		t.queue = t.queue[1:]
	}
	token := rand.Text()
	digest := sha256.Sum256([]byte(token))
	t.tokens[digest] = refreshToken{holder, scope, t.now().Add(refreshLifetime)}
	t.queue = append(t.queue, digest)
	return token
}

// find returns the scope of a token that is valid for the holder. It changes
// nothing: a token shown by somebody else stays good for its holder.
func (t *refreshTokens) find(token string, holder binding) (scope []string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, err := t.findLocked(token, holder)
	return found.scope, err
}

// rotate replaces a token by a new one with the same scope. Of two calls with
// the same token, one fails.
func (t *refreshTokens) rotate(token string, holder binding) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, err := t.findLocked(token, holder)
	if err != nil {
		return "", err
	}
	delete(t.tokens, sha256.Sum256([]byte(token)))
	return t.issueLocked(holder, found.scope), nil
}

func (t *refreshTokens) findLocked(token string, holder binding) (refreshToken, error) {
	found, ok := t.tokens[sha256.Sum256([]byte(token))]
	switch {
	case !ok:
		return refreshToken{}, refuse(errInvalidGrant, "RFC 6749 6", "unknown refresh token, or used already")
	case !t.now().Before(found.expires):
		return refreshToken{}, refuse(errInvalidGrant, "RFC 6749 6", "refresh token has expired")
	case found.holder.clientID != holder.clientID:
		return refreshToken{}, refuse(errInvalidGrant, "RFC 6749 6", "refresh token of another client")
	case found.holder.thumbprint != holder.thumbprint:
		return refreshToken{}, refuse(errInvalidGrant, "10.3", "refresh token is bound to another Client Instance Key")
	}
	return found, nil
}
