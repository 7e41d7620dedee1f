// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/report"
	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/jwtview"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/examples/reference"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// A fleet is simulated devices, one of which is switched on at a time, and the
// servers that they talk to. All of them have the same clock.
type fleet struct {
	dir     string // of the devices' keys
	servers *reference.Servers

	mu           sync.Mutex
	ahead        time.Duration // how far the clock is ahead of the real one
	attestations int
	attested     attested
	refusals     []refusal
	verdicts     *verdicts // of the act
}

// A refusal is a record of the authorization server.
type refusal struct{ code, reason string }

// tellFirmware plays the story of what firmware has to do with tokens. It
// returns the thumbprint of the first device's key.
func tellFirmware(ctx context.Context, _ *storeflag.Flags, s *story, r *reporting, stderr io.Writer) (thumbprint string, err error) {
	f := new(fleet)
	if f.dir, err = os.MkdirTemp("", "instancekey-"); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(f.dir)) }()
	v, err := newVendor(f.now)
	if err != nil {
		return "", err
	}
	x1, x0 := &device{vendor: v, model: modelX1}, &device{vendor: v, model: modelX0}
	if err := f.start(ctx, v, []*device{x1, x0}, stderr); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.servers.Close()) }()

	s.preface("The authorization server's policy: " + string(policyFile))
	for i, a := range firmwareActs(x1, x0) {
		recorder := r.act(fmt.Sprintf("Act %d. %s", i+1, a.title), "simulator")
		f.decide(newVerdicts(recorder, policyFile))
		played, key, err := f.play(ctx, a, recorder)
		if err != nil {
			return "", fmt.Errorf("act %d: %w", i+1, err)
		}
		played.Act = i + 1
		if err := s.act(played); err != nil {
			return "", err
		}
		switch {
		case !played.AsTold:
			return "", fmt.Errorf("act %d did not go as told", i+1)
		case a.device == x1 && thumbprint != "" && key != thumbprint:
			return "", fmt.Errorf("act %d: the device has another key than before", i+1)
		case a.device == x1:
			thumbprint = key
		}
	}
	return thumbprint, nil
}

// start has the devices made, so that the attester knows their TPMs, and starts
// the servers.
func (f *fleet) start(ctx context.Context, v *vendor, devices []*device, stderr io.Writer) error {
	for _, d := range devices {
		d.version, d.secureBoot = current, true
		store, err := f.switchOn(ctx, d)
		if err != nil {
			return err
		}
		if err := store.Close(); err != nil {
			return err
		}
	}
	verifier, err := v.verifier(devices...)
	if err != nil {
		return err
	}
	policy, err := authserver.ParsePolicy(policyFile)
	if err != nil {
		return err
	}
	ignore := func(map[string]string) {}
	attested := func(record map[string]string) { f.decided().attester(record) }
	granted := func(record map[string]string) { f.decided().server(record) }
	f.servers, err = reference.Start(reference.Config{
		Attester: attester.Config{
			Clients:  []string{clientID},
			Evidence: verifier,
			Lifetime: 24 * time.Hour, // longer than the policy's max_age
			Now:      f.now,
			Logger:   watchLog(stderr, map[string]func(map[string]string){"attestation key enrolled": ignore, "client attestation issued": attested}, attested),
		},
		AuthServer: authserver.Config{
			Clients:    []authserver.Client{{ID: clientID, Scopes: []string{scope}}},
			Challenges: &authserver.ChallengeConfig{Endpoint: true},
			Policy:     policy,
			Now:        f.now,
			Logger:     watchLog(stderr, map[string]func(map[string]string){"token issued": granted, "token request refused": f.refused}, granted),
		},
	})
	return err
}

// switchOn starts the device's TPM: the same one each time, since it has its
// seed in the folder.
func (f *fleet) switchOn(ctx context.Context, d *device) (*storeflag.Store, error) {
	flags := storeflag.Flags{Store: "simulator", Keys: filepath.Join(f.dir, d.model), Boot: d.boot}
	return flags.Open(ctx)
}

// play plays an act, and returns also the thumbprint of the device's key. An
// error is about something that is in no act.
func (f *fleet) play(ctx context.Context, a act, recorder *report.Recorder) (_ played, thumbprint string, err error) {
	f.attestations, f.attested, f.refusals = 0, attested{}, nil // nobody else is about
	a.device.version, a.device.secureBoot = a.version, a.secureBoot
	store, err := f.switchOn(ctx, a.device)
	if err != nil {
		return played{}, "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	cfg := instance(f.servers, store, http.DefaultTransport)
	recorder.Attach(&cfg)
	cfg.Attester = watchedAttester{cfg.Attester, f}
	cfg.Clock = f.now
	c, err := client.New(ctx, cfg)
	if err != nil {
		return played{}, "", err
	}
	defer c.Close()
	if thumbprint, err = keystore.Thumbprint(c.Key().Public()); err != nil {
		return played{}, "", err
	}

	issued, err := c.Token(ctx, scope)
	if err == nil && a.later > 0 {
		f.advance(a.later)
		c.Forget(issued) // two hours have passed on the story's clock alone
		_, err = c.Token(ctx, scope)
	}
	recorder.Fail(err)
	recorder.Fact("expected", a.expect)
	p := played{Story: "firmware", Title: a.title, Expect: a.expect, Got: token}
	if refused := new(transport.Error); errors.As(err, &refused) && refused.Code != "" {
		p.Got = refused.Code
	} else if err != nil {
		return played{}, "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p.Attested, p.Attestations = f.attested, f.attestations
	p.compare(a, f.refusals)
	return p, thumbprint, nil
}

// now is everybody's clock.
func (f *fleet) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Add(f.ahead)
}

func (f *fleet) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead += d
}

// decide begins an act's verdicts.
func (f *fleet) decide(v *verdicts) {
	v.now = f.now
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verdicts = v
}

func (f *fleet) decided() *verdicts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.verdicts
}

// refused is told what the authorization server logs of a refusal.
func (f *fleet) refused(record map[string]string) {
	f.decided().server(record)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusals = append(f.refusals, refusal{record["error"], record["reason"]})
}

// A watchedAttester tells the fleet what attestations say. It is all that it
// takes to put something of one's own in an attester's place. Around a
// client.PushAttester it would take one thing more: client.Config.Key in place of
// Store, since New would make a missing key for an Attester that it does not know.
type watchedAttester struct {
	client.Attester
	f *fleet
}

// Attest implements client.Attester.
func (w watchedAttester) Attest(ctx context.Context, req client.AttestRequest) (string, error) {
	attestation, err := w.Attester.Attest(ctx, req)
	if err != nil {
		return "", err
	}
	view, err := jwtview.Decode(attestation)
	if err != nil {
		return "", err
	}
	said, err := readAttested(&view)
	if err != nil {
		return "", err
	}
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	w.f.attestations++
	w.f.attested = said
	w.f.verdicts.attested(attestation)
	return attestation, nil
}
