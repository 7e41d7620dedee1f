// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/instancekey/instancekey/internal/binding"
	"github.com/instancekey/instancekey/internal/flight"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// ErrTokenType: the server issued a token of another type than the Client asked for (RFC
// 9449, section 5): a bearer token although the request had a DPoP proof, or a DPoP-bound
// token although it had none. The Client drops the token.
var ErrTokenType = errors.New("client: token has an unexpected token_type")

// tokenTimeout bounds a token request, which several callers may wait for and
// which therefore ends with none of them.
const tokenTimeout = 2 * time.Minute

// Token returns an access token by the client credentials grant (RFC 6749, section 4.4)
// with these scopes, for all of Config.Resources. If the server does not issue one token
// for several resources, use [Client.TokenFor]. The Client keeps a token until 10 seconds
// before it expires, if the server says when that is. A call in the last quarter of that
// time has the next token fetched in the background, and does not wait for it.
//
// Callers that come at the same time share one grant. A caller's context ends only that
// caller's wait. When all callers have gone, the grant goes on for 10 seconds, so that a
// later call may find its token. If a request has no answer after 5 seconds, the Client
// makes a second one beside it, with a proof of its own. So a connection that has died
// holds nobody up for long. A grant ends after 2 minutes.
//
// Token does not bind a message of transport.BindMessage, since the request may be
// another caller's. Use x/oauth2's clientcredentials for that.
//
// For other grants use golang.org/x/oauth2 with [Client.Endpoint] and
// [Client.HTTPClient].
//
// Errors are of type *[transport.Error], whose Step tells what has failed, or, if ctx
// has ended, what was waited for, and whose Temporary tells whether to try again. A
// refusal of the server is also of type *[oauth2.RetrieveError], and an issuer whose
// metadata cannot be had is [ErrMetadata] too. Or they match [ErrMetadata] alone,
// [ErrTokenType] or [ErrClosed].
func (c *Client) Token(ctx context.Context, scopes ...string) (*oauth2.Token, error) {
	return c.token(ctx, "", c.resources, scopes)
}

// TokenFor is Token for one of Config.Resources. Many servers take no more than one
// resource parameter (RFC 8707, section 2), and one resource cannot use a token for
// another. The Client keeps and shares these tokens apart from those of Token. An
// identifier that is not in Config.Resources, byte for byte, is an error, and nothing is
// sent.
func (c *Client) TokenFor(ctx context.Context, identifier string, scopes ...string) (*oauth2.Token, error) {
	r := c.resource(identifier)
	if r == nil {
		return nil, fmt.Errorf("client: token: %.200q is none of Config.Resources", identifier)
	}
	return c.token(ctx, identifier, []*resource{r}, scopes)
}

// TokenSource returns an oauth2.TokenSource that calls Token with these scopes. The
// source keeps ctx: each call waits until ctx ends at the most, and calls after that
// fail. The source holds no lock and keeps no token itself.
func (c *Client) TokenSource(ctx context.Context, scopes ...string) oauth2.TokenSource {
	return tokenSource{ctx, c, slices.Clone(scopes)}
}

type tokenSource struct {
	ctx    context.Context
	client *Client
	scopes []string
}

func (s tokenSource) Token() (*oauth2.Token, error) { return s.client.Token(s.ctx, s.scopes...) }

// token returns a token for these resources, which are kept under one name.
func (c *Client) token(ctx context.Context, name string, resources []*resource, scopes []string) (*oauth2.Token, error) {
	defer c.clock.tell(ctx)
	if c.ctx.Err() != nil {
		return nil, ErrClosed
	}
	scopes = slices.Clone(scopes)
	slices.Sort(scopes)
	scopes = slices.DeleteFunc(slices.Compact(scopes), func(s string) bool { return s == "" })
	key := name + "\x00" + strings.Join(scopes, " ") // no identifier has a control character

	if token, due := c.keptToken(key); token != nil {
		if due {
			c.tokenRenewals.Begin(ctx, key, func(ctx context.Context) (*oauth2.Token, error) {
				return c.renewToken(ctx, key, resources, scopes)
			})
		}
		return token, nil
	}
	shared, err := c.grants.Do(ctx, key, func(ctx context.Context) (*oauth2.Token, error) {
		if token, _ := c.keptToken(key); token != nil {
			return token, nil
		}
		return c.grant(binding.Without(ctx), key, resources, scopes)
	})
	if _, gone := err.(*flight.Gone); gone {
		return nil, withPrefix(c.waited(c.issuer, transport.StepSend, err))
	}
	if err != nil {
		return nil, c.closedOr(err)
	}
	token := *shared // callers may change theirs
	return &token, nil
}

// renewToken gets the next token while the present one is used. Whoever needs one because
// that has ended does not wait for this, but asks on its own: for a PIN, too, which is
// not asked for here.
func (c *Client) renewToken(ctx context.Context, key string, resources []*resource, scopes []string) (*oauth2.Token, error) {
	if token, due := c.keptToken(key); !due {
		return token, nil // another renewal was just before this one
	}
	token, err := c.grant(keystore.InBackground(binding.Without(ctx), nil), key, resources, scopes)
	if err != nil && c.ctx.Err() == nil {
		c.putOff(key)
		c.log.WarnContext(ctx, "client: token not renewed, the present one is used on", "issuer", c.issuer, "error", err)
	}
	return token, err
}

func (c *Client) grant(ctx context.Context, key string, resources []*resource, scopes []string) (*oauth2.Token, error) {
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
	if parameters := s.parameters(resources); len(parameters) > 0 {
		config.EndpointParams = url.Values{"resource": parameters}
	}
	request, asked := &tokenRequest{client: c}, c.ages()
	token, err := config.Token(request.with(ctx))
	if err != nil {
		return nil, withPrefix(c.tokenError(request, err))
	}
	if err := c.checkType(s, token); err != nil {
		return nil, err
	}
	c.keepToken(key, token, asked)
	return token, nil
}
