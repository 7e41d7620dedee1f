package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/instancekey/instancekey/transport"
)

// ErrTokenType: the server issued a token of another type than was asked for: a
// bearer token although a DPoP proof was sent, or a DPoP-bound one without (RFC
// 9449, section 5). The token is dropped.
var ErrTokenType = errors.New("client: token has an unexpected token_type")

// tokenTimeout bounds a token request, which several callers may wait for and
// which therefore ends with none of them.
const tokenTimeout = 2 * time.Minute

// Token returns an access token by the client credentials grant (RFC 6749,
// section 4.4) with these scopes, for all of Config.Resources: where the server
// does not issue one token for several, use [Client.TokenFor]. A token is kept
// until 10 seconds before it expires, if the server says when; callers that come
// at the same time share one grant. A caller's context ends only that caller's
// wait; whoever comes after that begins a new grant. A challenge or metadata
// request that is never answered holds up all who need its answer, for 30 seconds
// at the most.
//
// A message of transport.BindMessage is not bound, since the request may be
// another caller's: use x/oauth2's clientcredentials for that.
//
// For other grants use golang.org/x/oauth2 with [Client.Endpoint] and
// [Client.HTTPClient].
//
// Errors are of type *[transport.Error], whose Temporary tells whether to try
// again; a refusal of the server is also of type *[oauth2.RetrieveError], and an
// issuer whose metadata cannot be had is [ErrMetadata] too. Or they match
// [ErrMetadata] alone, [ErrTokenType], [ErrClosed] or ctx.Err().
func (c *Client) Token(ctx context.Context, scopes ...string) (*oauth2.Token, error) {
	var resources []string
	for _, r := range c.resources {
		resources = append(resources, r.identifier)
	}
	return c.token(ctx, "", resources, scopes)
}

// TokenFor is Token for that one of Config.Resources alone: many servers take no
// more than one resource parameter (RFC 8707, section 2), and a token for one
// resource is of no use to another that it falls into the hands of. It is kept
// and shared apart from those of Token. An identifier that is not in
// Config.Resources, byte for byte, is an error before anything is sent.
func (c *Client) TokenFor(ctx context.Context, resource string, scopes ...string) (*oauth2.Token, error) {
	for _, r := range c.resources {
		if r.identifier == resource {
			return c.token(ctx, resource, []string{resource}, scopes)
		}
	}
	return nil, fmt.Errorf("client: token: %.200q is none of Config.Resources", resource)
}

// token returns a token for these resources, which are kept under one name.
func (c *Client) token(ctx context.Context, name string, resources, scopes []string) (*oauth2.Token, error) {
	if err := c.ctx.Err(); err != nil {
		return nil, ErrClosed
	}
	scopes = slices.Clone(scopes)
	slices.Sort(scopes)
	scopes = slices.DeleteFunc(slices.Compact(scopes), func(s string) bool { return s == "" })
	key := fmt.Sprintf("%q %s", name, strings.Join(scopes, " "))

	if token := c.cachedToken(key); token != nil {
		return token, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("client: token: %w", err)
	}
	granted := c.flight.DoChan("token "+key, func() (any, error) {
		if token := c.cachedToken(key); token != nil {
			return token, nil
		}
		ctx, cancel := c.detach(transport.WithoutMessage(ctx), tokenTimeout)
		defer cancel()
		return c.grant(ctx, key, resources, scopes)
	})
	shared, err := await[*oauth2.Token](ctx, "token", granted)
	if ctx.Err() != nil {
		// It may be stalled: whoever comes next does not wait for it, too.
		c.flight.Forget("token " + key)
	}
	if err != nil {
		return nil, c.closedOr(err)
	}
	token := *shared // callers may change theirs
	return &token, nil
}

// Forget makes Token and TokenFor get a new token instead of this one, which a
// resource has refused although it has not expired. A token that is not kept is no
// error.
func (c *Client) Forget(token *oauth2.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.tokens, func(_ string, kept *oauth2.Token) bool {
		return token != nil && kept.AccessToken == token.AccessToken
	})
}

func (c *Client) cachedToken(key string) *oauth2.Token {
	c.mu.Lock()
	defer c.mu.Unlock()
	if token := c.tokens[key]; token.Valid() {
		copied := *token
		return &copied
	}
	return nil
}

func (c *Client) grant(ctx context.Context, key string, resources, scopes []string) (*oauth2.Token, error) {
	s, err := c.server(ctx)
	if err != nil {
		return nil, err
	}
	config := clientcredentials.Config{
		ClientID:  c.clientID,
		TokenURL:  s.metadata.TokenEndpoint,
		AuthStyle: oauth2.AuthStyleInParams,
		Scopes:    scopes,
	}
	if len(resources) > 0 {
		config.EndpointParams = url.Values{"resource": resources}
	}
	request := &tokenRequest{client: c}
	token, err := config.Token(request.with(ctx))
	if err != nil {
		return nil, c.tokenError(request, err)
	}
	if err := c.checkType(s, token); err != nil {
		return nil, err
	}
	if token.Expiry.IsZero() {
		return token, nil // without an end it would never be replaced
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.tokens, func(_ string, kept *oauth2.Token) bool { return !kept.Valid() })
	c.tokens[key] = token
	return token, nil
}

// tokenError turns a failure, or a server's refusal, into the error type of this
// module, which tells more of the request and nothing of what a server may have
// sent instead of an OAuth error, a proxy's page for example.
func (c *Client) tokenError(request *tokenRequest, err error) error {
	described := &transport.Error{Audience: c.issuer, Thumbprint: c.thumbprint, Step: "answer", Send: request.sends, Err: err}
	var refusal *oauth2.RetrieveError
	switch {
	case errors.As(err, new(*transport.Error)) || errors.Is(err, ErrClosed):
		return fmt.Errorf("client: token: %w", err)
	case request.failed != nil:
		described.Step, described.Err = "send", request.failed
	case errors.As(err, &refusal) && refusal.Response != nil:
		described.Status = refusal.Response.StatusCode
		described.Code = cmp.Or(refusal.ErrorCode, transport.Code(refusal.Response))
	}
	if advice := Advice(err); advice != "" {
		return fmt.Errorf("client: token: %w: %s", described, advice)
	}
	return fmt.Errorf("client: token: %w", described)
}
