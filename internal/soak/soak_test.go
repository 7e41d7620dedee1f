// SPDX-License-Identifier: Apache-2.0

//go:build soak

// Package soak_test lets clients with keys in one TPM work for a while at services on
// which everything goes wrong in turn: make soak. It prints what has happened, and
// fails where a request was formed wrongly, a credential went astray, a Client does not
// recover when all is well again, or something piles up.
package soak_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/clienttest"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

var (
	length  = flag.Duration("for", time.Minute, "how long things go wrong")
	seed    = flag.Uint64("seed", 0, "decides what goes wrong; 0 draws one")
	callers = flag.Int("callers", 64, "goroutines that make requests")
	leak    = flag.Int("leak", 0, "bytes that each call leaves behind, to see that it is noticed")
)

const clients = 4 // with a key each

// policies are what the authorization server is in turn.
var policies = map[string]transporttest.Policy{
	"strict":               {},
	"single use":           {Kind: transporttest.SingleUse},
	"single use, always":   {Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways, NoEndpoint: true},
	"every third refused":  {RefuseEvery: 3},
	"all refused":          {RefuseAll: true},
	"the refused again":    {RefuseAll: true, RepeatRefused: true},
	"no header":            {Kind: transporttest.SingleUse, Offer: transporttest.OfferNever},
	"huge bodies":          {RefuseEvery: 2, Body: transporttest.HugeBody},
	"zipped bodies":        {RefuseEvery: 2, Body: transporttest.GzipBody},
	"challenges too large": {ChallengeBytes: 9000},
	"unknown client":       {UnknownClient: true},
	"redirects":            {Redirect: http.StatusTemporaryRedirect},
	"cuts":                 {Cut: true},
	"early":                {Early: true, RefuseEvery: 2},
}

// A soak is a run.
type soak struct {
	*tally
	services *clienttest.Services
	store    *tpm.Store
	cache    client.DirCache
	network  *http.Transport
	offset   atomic.Int64 // of the devices' clock

	mu      sync.Mutex
	clients [clients]*client.Client
	leaked  [][]byte
}

func TestSoak(t *testing.T) {
	for *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("seed %d, for %s, %d goroutines", *seed, *length, *callers)
	dice := rand.New(rand.NewPCG(*seed, 0))

	chip := tpmtest.Simulator(t)
	store, err := tpm.Open(t.Context(), tpm.Config{Dial: chip.Dial, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := &soak{services: clienttest.New(t, clienttest.Config{}), store: store, cache: client.DirCache(t.TempDir()), network: new(http.Transport)}
	s.tally = newTally()
	for i := range s.clients {
		s.replace(t, i)
	}

	over, stop := context.WithTimeout(t.Context(), *length)
	defer stop()
	var all sync.WaitGroup
	for range *callers {
		own := rand.New(rand.NewPCG(*seed, dice.Uint64()))
		all.Go(func() {
			for over.Err() == nil {
				s.call(s.client(own.IntN(clients)), own)
			}
		})
	}
	all.Go(func() { s.disturb(t, over, dice, chip) })
	all.Go(func() { s.watch(over) })
	all.Wait()

	s.calm(t)
	for i := range s.clients {
		s.client(i).Close()
	}
	s.network.CloseIdleConnections()
	s.collect(s.services)
	s.print(t)
	s.check(t)
	s.checkLeft(t)
}

// replace closes a Client, whatever it is doing, and puts another one in its place.
func (s *soak) replace(t *testing.T, i int) {
	cfg := s.services.ClientConfig()
	cfg.Key, cfg.Store, cfg.KeyName = nil, s.store, fmt.Sprint("key", i)
	cfg.Base, cfg.Cache = s.network, s.cache
	cfg.Clock = func() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }
	cfg.Attester = client.HTTPAttester{URL: s.services.Attester.URL, Client: &http.Client{Transport: s.network}}
	cfg.Trace = &client.Trace{Trace: transport.Trace{Request: s.sent}}
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Errorf("client %d: %v", i, err)
		return
	}
	s.mu.Lock()
	old := s.clients[i]
	s.clients[i] = c
	s.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

func (s *soak) client(i int) *client.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients[i]
}

// call makes one request of a kind, and not all callers are patient.
func (s *soak) call(c *client.Client, dice *rand.Rand) {
	if *leak > 0 {
		s.mu.Lock()
		s.leaked = append(s.leaked, make([]byte, *leak))
		s.mu.Unlock()
	}
	patience := 10 * time.Second
	if dice.IntN(4) == 0 {
		patience = time.Duration(1+dice.IntN(200)) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	switch scope := fmt.Sprint("scope-", dice.IntN(1000)); dice.IntN(3) {
	case 0:
		var token *oauth2.Token
		if token, err = c.Token(ctx, scope); err == nil {
			c.Forget(token) // thousands are kept otherwise, and hide what piles up
		}
	case 1:
		scope = fmt.Sprint("scope-", dice.IntN(10))
		err = get(ctx, c.ResourceClient(scope), s.services.Resource.URL)
	default:
		err = introspect(ctx, c.HTTPClient(), s.services.Server.Endpoint(transporttest.Introspection))
	}
	s.count(err)
}

func get(ctx context.Context, h *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return do(h, req)
}

func introspect(ctx context.Context, h *http.Client, endpoint string) error {
	form := url.Values{"token": {"of somebody"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(h, req)
}

func do(h *http.Client, req *http.Request) error {
	resp, err := h.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		return status(resp.StatusCode)
	}
	return err
}

// disturb lets something else go wrong every second, each thing as often as any other.
func (s *soak) disturb(t *testing.T, over context.Context, dice *rand.Rand, chip *tpmtest.Sim) {
	events := map[string]func(){
		"TPM reset":     chip.Reset,
		"attester away": func() { s.services.Attester.SetAway(true) },
		"clock set": func() {
			s.offset.Store(int64([]time.Duration{time.Minute, time.Hour, -time.Hour, 8 * 24 * time.Hour}[dice.IntN(4)]))
		},
		"Close in the middle": func() { s.replace(t, dice.IntN(clients)) },
		"tokens and challenges revoked": func() {
			s.services.RevokeTokens()
			s.services.Server.Rotate()
		},
	}
	for name, policy := range policies {
		events["server: "+name] = func() { s.be(policy) }
	}
	var left []string
	for calm := false; wait(over, 500*time.Millisecond); calm = !calm {
		if calm { // half of the time, or there would be nothing but refusals
			s.allIsWell()
			continue
		}
		if len(left) == 0 {
			left = slices.Sorted(maps.Keys(events))
			dice.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
		}
		events[left[0]]()
		s.happened(left[0])
		left = left[1:]
	}
}

// be changes the server's policy, but not what it grants.
func (s *soak) be(p transporttest.Policy) {
	s.services.Server.Set(func(now *transporttest.Policy) {
		p.Answer = now.Answer
		*now = p
	})
}

func (s *soak) allIsWell() {
	s.be(transporttest.Policy{})
	s.services.Attester.SetAway(false)
	s.offset.Store(0)
}

// calm lets all be well again: each Client must recover by itself.
func (s *soak) calm(t *testing.T) {
	s.allIsWell()
	for i := range s.clients {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		var err error
		for again := true; again; again = wait(ctx, time.Second) {
			_, err = s.client(i).Token(ctx, "at the end")
			if err == nil {
				break
			}
		}
		if err != nil {
			t.Errorf("client %d does not recover: %v", i, err)
		}
		cancel()
	}
}

// watch takes a sample of what could pile up, 60 in all.
func (s *soak) watch(over context.Context) {
	for wait(over, max(*length/60, 100*time.Millisecond)) {
		s.collect(s.services)
		s.sample()
	}
}

// wait returns false once ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
