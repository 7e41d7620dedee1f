// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// clientFlags say which client this is, and who attests it.
type clientFlags struct {
	store    storeflag.Flags
	name     string
	issuer   string
	clientID string

	attester, attestation, self string // exactly one
	caFile                      string
	timeout                     time.Duration

	method, profile string
	dpop            bool

	recording recording

	keyExists bool // for what the command was given is of a key that there is

	resource, grant     string // only the token command has these flags
	resourceAttestation string
	resourceParameter   bool
}

// aboutSelf explains -self in a command's help.
const aboutSelf = `-self needs a private EC JWK, {"kty":"EC","crv":"P-256","x":…,"y":…,"d":…}, which may have a "kid". The
server has to trust its public half, the same without "d": jq 'del(.d)' FILE`

// register adds the flags. issuer says when -issuer may be left out, and finds
// with what the key has to exist.
func (f *clientFlags) register(fs *flag.FlagSet, issuer, finds string) {
	f.store.RegisterDefaults(fs, "required", storeflag.TemporaryKeys+"; required with "+finds)
	f.registerClient(fs, issuer, "required", "exactly one of -attester, -attestation, -self is required")
	fs.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long one token or attestation may take")
}

// registerClient adds those that say which client it is. issuer and clientID say when
// -issuer and -client-id are required, and attester which of the ways to be attested.
func (f *clientFlags) registerClient(fs *flag.FlagSet, issuer, clientID, attester string) {
	one := " (" + attester + ")"
	f.store.RegisterKeys(fs)
	f.store.RegisterEK(fs)
	f.store.RegisterLogs(fs)
	f.store.RegisterAuth(fs)
	fs.StringVar(&f.name, "name", "", "`name` of the key (default: derived from -issuer and -client-id)")
	fs.StringVar(&f.issuer, "issuer", "", "the authorization server's issuer identifier, a `URL` ("+issuer+")")
	fs.StringVar(&f.clientID, "client-id", "", "the OAuth client_id, `ID` ("+clientID+")")
	fs.StringVar(&f.attester, "attester", "", "ask the Client Attester at this `URL`"+one)
	fs.StringVar(&f.attestation, "attestation", "", "use the Client Attestation in this `file`, provisioned beforehand, for a key that exists"+one)
	fs.StringVar(&f.self, "self", "", "let the instance attest itself with the private EC JWK in this `file`"+one)
	registerCA(fs, &f.caFile)
	fs.StringVar(&f.method, "method", "auto", "client authentication `method`: auto, pop or dpop")
	fs.BoolVar(&f.dpop, "dpop", false, "ask for sender-constrained tokens (DPoP) beside the PoP JWT; -method dpop implies it")
	f.recording.register(fs)
	fs.StringVar(&f.profile, "profile", "draft-12", "the `profile` that the server speaks: draft-12, draft-10, oid4vci-1 or keycloak")
}

func registerCA(fs *flag.FlagSet, caFile *string) {
	fs.StringVar(caFile, "ca", "", "trust the root certificates in this `file` (PEM), and no others")
}

// check refuses a command line that cannot work. It touches nothing.
func (f *clientFlags) check() error {
	if f.clientID == "" {
		return badUsage("-client-id is missing")
	}
	if f.attesters() != 1 {
		return badUsage("give exactly one of -attester, -attestation, -self")
	}
	if f.timeout <= 0 {
		return badUsage("-timeout must be more than 0")
	}
	return f.checkValues()
}

// attesters is how many ways to be attested are given.
func (f *clientFlags) attesters() (n int) {
	for _, value := range []string{f.attester, f.attestation, f.self} {
		if value != "" {
			n++
		}
	}
	return n
}

// checkValues refuses what no value of a flag can be.
func (f *clientFlags) checkValues() error {
	for _, url := range [][2]string{{"-issuer", f.issuer}, {"-attester", f.attester}, {"-resource", f.resource}} {
		if err := checkURL(url[0], url[1]); err != nil {
			return err
		}
	}
	if f.name != "" {
		if err := keystore.CheckName(f.name); err != nil {
			return badUsage("-name: %w", err)
		}
	}
	return f.checkProtocol()
}

// checkScope refuses what no scope is (RFC 6749, section 3.3).
func checkScope(scope string) error {
	for _, c := range scope {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return badUsage("-scope: %.60q has a character that no scope has", scope)
		}
	}
	return nil
}

// checkURL refuses a flag's URL that a client would, if there is one.
func checkURL(flag, value string) error {
	if value == "" {
		return nil
	}
	if _, err := endpoint.ParseIdentifier(value); err != nil {
		return badUsage("%s %w", flag, err)
	}
	return nil
}

// The values of -method, -profile and -resource-attestation.
var (
	resourceAttestations = map[string]client.ResourceAttestation{
		"listed": client.AttestListed,
		"always": client.AttestAlways,
		"never":  client.AttestNever,
	}
	methods = map[string]transport.Method{
		"auto": "",
		"pop":  transport.MethodPoP,
		"dpop": transport.MethodDPoP,
	}
	profiles = map[string]transport.Profile{
		"draft-12":  transport.ProfileDraft12,
		"draft-10":  transport.ProfileDraft10,
		"oid4vci-1": transport.ProfileOpenID4VCI,
		"keycloak":  transport.ProfileKeycloak,
	}
)

func (f *clientFlags) checkProtocol() error {
	if _, ok := methods[f.method]; !ok {
		return badUsage("-method %.20q: use auto, pop or dpop", f.method)
	}
	if _, ok := profiles[f.profile]; !ok {
		return badUsage("-profile %.20q: use draft-12, draft-10, oid4vci-1 or keycloak", f.profile)
	}
	return nil
}

// makesKey reports whether a key that does not exist is created: an attestation
// that was provisioned, or a refresh token, is for one that does. The server may
// burn a refresh token that comes with another.
func (f *clientFlags) makesKey() bool {
	return f.attestation == "" && f.grant != grantRefresh && !f.keyExists
}

// existing is a store that makes no key.
type existing struct{ keystore.Store }

func (s existing) Create(ctx context.Context, name string) (keystore.Key, error) {
	return s.Open(ctx, name) // says that it is not there
}

// newAttester returns the attester that the flags choose.
func (f *clientFlags) newAttester(p *program, network http.RoundTripper) (client.Attester, error) {
	if strings.HasSuffix(f.attester, "/") {
		p.log.Warn("-attester ends with a slash: the attester compares this URL byte for byte with its own; if it answers invalid_pop, leave the slash out")
	}
	return f.chooseAttester(p, network)
}

func (f *clientFlags) chooseAttester(p *program, network http.RoundTripper) (client.Attester, error) {
	switch {
	case f.attester != "":
		return client.HTTPAttester{URL: f.attester, Client: &http.Client{Transport: network}}, nil
	case f.attestation != "":
		// What is in it is checked where every attestation is, by the client.
		if _, err := readFile(f.attestation); err != nil {
			return nil, usageError{fmt.Errorf("-attestation: %w", err)}
		}
		return client.PushAttester{File: f.attestation}, nil
	default:
		p.warnReadable("-self", f.self)
		return readSelfAttester(f.self)
	}
}

// readSelfAttester reads the private JWK of an instance that attests itself.
// Errors do not quote the file.
func readSelfAttester(name string) (self client.SelfAttester, err error) {
	content, err := readFile(name)
	if err != nil {
		return self, usageError{fmt.Errorf("-self: %w", err)}
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(content); err != nil {
		return self, badUsage("-self: %s is not a JWK", name)
	}
	private, ok := jwk.Key.(*ecdsa.PrivateKey)
	if !ok {
		return self, badUsage(`-self: %s is not a private EC key: it needs "kty":"EC" and "d"`, name)
	}
	key, err := keystore.FromSigner(private)
	if err != nil {
		return self, usageError{fmt.Errorf("-self: %w", err)}
	}
	if jwk.Algorithm != "" && jwk.Algorithm != key.Algorithm() {
		return self, badUsage("-self: %s is for %.20q and its curve for %s", name, jwk.Algorithm, key.Algorithm())
	}
	self = client.SelfAttester{Key: key, KeyID: jwk.KeyID, Certificates: jwk.Certificates}
	if len(self.Certificates) > 0 {
		if _, err := keystore.X5C(self.Certificates, key.Public()); err != nil {
			return self, badUsage("-self: %s: x5c: %w", name, err)
		}
	}
	return self, nil
}

// newClient opens the key and returns a client with it. It sends nothing.
func (f *clientFlags) newClient(ctx context.Context, store keystore.Store, attester client.Attester, base http.RoundTripper, log *slog.Logger) (*client.Client, error) {
	if !f.makesKey() {
		store = existing{store}
	}
	cfg := client.Config{
		Issuer:   f.issuer,
		ClientID: f.clientID,
		Store:    store,
		KeyName:  f.name,
		Attester: attester,
		Method:   methods[f.method],
		Profile:  profiles[f.profile],
		Base:     base,
		Logger:   log,
	}
	if f.dpop {
		cfg.DPoP = client.DPoPOwnKey
	}
	if f.resource != "" {
		cfg.Resources = []client.Resource{{
			Identifier:    f.resource,
			Attestation:   resourceAttestations[f.resourceAttestation],
			OmitParameter: !f.resourceParameter,
		}}
	}
	f.recording.attach(&cfg)
	return client.New(ctx, cfg)
}

// limit ends what a command does at -timeout.
func (f *clientFlags) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, f.timeout, lateError(f.timeout))
}
