package authserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/internal/serve"
	"github.com/instancekey/instancekey/keystore"
)

const (
	grantClientCredentials = "client_credentials"
	grantRefreshToken      = "refresh_token"
)

const maxFormSize = 64 << 10

// tokenResponse: RFC 6749, section 5.1.
type tokenResponse struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope,omitempty"`
}

// serveToken is the token endpoint (RFC 6749, section 3.2).
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	s.offerChallenge(w)
	s.offerDPoPNonce(w)
	response, err := s.grantToken(w, r)
	if err != nil {
		s.writeRefusal(r.Context(), w, err)
		return
	}
	serve.JSON(w, http.StatusOK, response)
}

func (s *Server) grantToken(w http.ResponseWriter, r *http.Request) (*tokenResponse, error) {
	form, err := readForm(w, r)
	if err != nil {
		return nil, err
	}
	instance, err := s.authenticate(r, s.tokenEndpoint, form)
	if err != nil {
		return nil, err
	}

	var response *tokenResponse
	switch grantType := form.Get("grant_type"); {
	case grantType == grantClientCredentials:
		response, err = s.grantClientCredentials(instance, form)
	case grantType == grantRefreshToken && s.cfg.RefreshTokens:
		response, err = s.grantRefresh(instance, form)
	case grantType == "":
		err = refuse(errInvalidRequest, "RFC 6749 4", "no grant_type")
	default:
		err = refuse(errUnsupportedGrantType, "RFC 6749 5.2", "grant_type %.40q", grantType)
	}
	if err != nil {
		return nil, err
	}
	s.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "token issued",
		slog.String("client_id", instance.client.ID), slog.String("grant_type", form.Get("grant_type")),
		slog.String("token_type", response.TokenType), slog.String("instance_key", instance.thumbprint))
	return response, nil
}

// readForm reads the body of a token request (RFC 6749, section 3.2: no
// parameter twice, and one without a value counts as left out).
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	const rule = "RFC 6749 3.2"
	if r.URL.RawQuery != "" {
		return nil, refuse(errInvalidRequest, rule, "parameters in the URL")
	}
	if !serve.IsMediaType(r, "application/x-www-form-urlencoded") {
		return nil, refuse(errInvalidRequest, rule, "body is not application/x-www-form-urlencoded")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxFormSize)
	if err := r.ParseForm(); err != nil {
		return nil, refuse(errInvalidRequest, rule, "body: %v", err)
	}
	form := make(url.Values)
	for name, values := range r.PostForm {
		if len(values) > 1 {
			return nil, refuse(errInvalidRequest, rule, "parameter %.40q is given %d times", name, len(values))
		}
		if values[0] != "" {
			form[name] = values
		}
	}
	return form, nil
}

// grantClientCredentials: RFC 6749, section 4.4.
func (s *Server) grantClientCredentials(instance *clientInstance, form url.Values) (*tokenResponse, error) {
	scope, err := narrowScope(form.Get("scope"), instance.client.Scopes)
	if err != nil {
		return nil, err
	}
	response, err := s.newResponse(instance, scope)
	if err != nil {
		return nil, err
	}
	if s.cfg.RefreshTokens {
		response.RefreshToken = s.refresh.issue(binding{instance.client.ID, instance.thumbprint}, scope)
	}
	return response, nil
}

// grantRefresh: RFC 6749, section 6. Refresh tokens rotate: each is good for one
// request that succeeds.
func (s *Server) grantRefresh(instance *clientInstance, form url.Values) (*tokenResponse, error) {
	old := form.Get("refresh_token")
	if old == "" {
		return nil, refuse(errInvalidRequest, "RFC 6749 6", "no refresh_token")
	}
	holder := binding{instance.client.ID, instance.thumbprint}
	granted, err := s.refresh.find(old, holder)
	if err != nil {
		return nil, err
	}
	scope, err := narrowScope(form.Get("scope"), granted)
	if err != nil {
		return nil, err
	}
	response, err := s.newResponse(instance, scope)
	if err != nil {
		return nil, err
	}
	// The new refresh token keeps the scope that was granted, whatever part of
	// it this access token has.
	response.RefreshToken, err = s.refresh.rotate(old, holder)
	return response, err
}

// narrowScope returns the scope values that are asked for, or all that are
// allowed if none is.
func narrowScope(requested string, allowed []string) ([]string, error) {
	if requested == "" {
		return allowed, nil
	}
	scope := strings.Fields(requested)
	for _, value := range scope {
		if !slices.Contains(allowed, value) {
			return nil, refuse(errInvalidScope, "RFC 6749 3.3", "scope %.80q is not allowed for the client", value)
		}
	}
	return scope, nil
}

// newResponse makes an access token (RFC 9068), bound to the DPoP key if there
// is one (RFC 9449, section 5).
func (s *Server) newResponse(instance *clientInstance, scope []string) (*tokenResponse, error) {
	response := &tokenResponse{
		TokenType: "Bearer",
		ExpiresIn: int64(s.cfg.TokenLifetime.Seconds()),
		Scope:     strings.Join(scope, " "),
	}
	now := s.cfg.Now()
	claims := map[string]any{
		"iss":       s.cfg.Issuer,
		"aud":       s.cfg.Issuer, // there is no other resource here
		"sub":       instance.client.ID,
		"client_id": instance.client.ID,
		"iat":       jwt.NewNumericDate(now),
		"exp":       jwt.NewNumericDate(now.Add(s.cfg.TokenLifetime)),
		"jti":       rand.Text(),
	}
	if response.Scope != "" {
		claims["scope"] = response.Scope
	}
	if instance.dpopThumbprint != "" {
		response.TokenType = "DPoP"
		claims["cnf"] = map[string]string{"jkt": instance.dpopThumbprint}
	}
	var err error
	response.AccessToken, err = jwt.Signed(s.tokens.signer).Claims(claims).Serialize()
	if err != nil {
		return nil, fmt.Errorf("access token: %w", err)
	}
	return response, nil
}

// A tokenSigner signs access tokens with a key made at start.
type tokenSigner struct {
	signer jose.Signer
	public jose.JSONWebKeySet
}

func newTokenSigner() (*tokenSigner, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	kid, err := keystore.Thumbprint(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	private := jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: string(jose.ES256), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		return nil, err
	}
	return &tokenSigner{signer, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{private.Public()}}}, nil
}
