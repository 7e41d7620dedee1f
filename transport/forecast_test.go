// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// Where the requests of a test go, a letter each: t to the server, a and b to attested
// resources, u to one that is not attested and gets a DPoP proof, p to an attested one that
// gets both. A space is a second more from one to the next.
var places = map[rune]transport.Resource{
	'a': {Identifier: "https://a.example/api"},
	'b': {Identifier: "https://b.example/api"},
	'u': {Identifier: "https://u.example/api", Unattested: true},
	'p': {Identifier: "https://p.example/api"},
}

// withPlaces has these resources, where both keys are the one that is slow. The server gets
// a DPoP proof beside the PoP JWT if both is true.
func withPlaces(both bool) func(*aheadRig, *transport.Config) {
	return func(r *aheadRig, c *transport.Config) {
		for _, resource := range places {
			c.Resources = append(c.Resources, resource)
		}
		if c.DPoPKey = r.key; both {
			withInstanceDPoP(r, c)
		}
		r.server.Set(func(p *policy) {
			p.Intercept = func(_ http.ResponseWriter, r transporttest.Request) bool { return strings.HasPrefix(r.Path, "/api") }
		})
	}
}

// goes makes a request to a place, and returns how long it took.
func (r *aheadRig) goes(place rune) time.Duration {
	r.t.Helper()
	if place == 't' {
		return r.takes()
	}
	req := get(r.t, places[place].Identifier)
	if place == 'u' || place == 'p' {
		req.Header.Set("Authorization", "DPoP token")
	}
	return r.takes(func(*http.Request) *http.Request { return req })
}

// TestIdleHour: when requests cease, one signature was in vain, however many servers and
// resources they went to, in whatever order, and whatever the servers do meanwhile; or two
// if the requests carried two proofs each, and followed one another.
func TestIdleHour(t *testing.T) {
	random := func(seed uint64, of string) string {
		r, b := rand.New(rand.NewPCG(seed, 0)), new(strings.Builder)
		for range 60 {
			b.WriteByte(of[r.IntN(len(of))])
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		requests string
		both     bool // at the server
		waits    int  // how many of them waited for the key; -1: any number
		idle     int  // signatures in the idle hour
	}{
		"one request":                        {"t", false, 1, 1},
		"one request with two proofs":        {"t", true, 1, 1},
		"a token, then a resource":           {"taaaaaaaaa", false, 2, 1},
		"a token, then a call with a proof":  {"tuuuuuuuuu", false, 3, 1}, // which has to be repeated
		"a token, then a call with both":     {"tppppppppp", true, 3, 2},
		"in turn":                            {"tatatatatatatata", false, 3, 1},
		"three in turn":                      {"tabtabtabtabtab", false, 4, 1},
		"a token among calls":                {"taaaaaaaataaaaaaaa", false, 3, 1},
		"two resources":                      {"aaaaabbbbb", false, 2, 1},
		"seldom":                             {"t           a           t           a", false, 4, 1},
		"with two proofs, seldom":            {"t           p           t           p", true, 4, 1},
		"with two proofs, in turn":           {"tptptptptptp", true, -1, 2},
		"any order":                          {random(1, "tab"), false, -1, 1},
		"any order, and proofs":              {random(2, "taub"), false, -1, 1},
		"any order, with one or two of them": {random(3, "tabup "), true, -1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			for _, kind := range []transporttest.Kind{transporttest.Reusable, transporttest.SingleUse} {
				signingAhead(t, policy{Kind: kind, Offer: transporttest.OfferAlways}, func(r *aheadRig) {
					waits := 0
					for _, place := range test.requests {
						if place != ' ' && r.goes(place) > 0 {
							waits++
						}
						time.Sleep(time.Second)
					}
					if test.waits >= 0 && waits != test.waits {
						t.Errorf("%d waited for the key, want %d", waits, test.waits)
					}
					_, before := r.SignedAhead()
					time.Sleep(-time.Second + time.Hour)
					_, after := r.SignedAhead()
					// What was signed after the last response is what is unused now.
					if n := after - before; n > test.idle || n < test.idle && test.waits >= 0 {
						t.Errorf("%d signatures were in vain (%v), want %d", n, r.whys(), test.idle)
					}
					if most := 2 + len(test.requests)/5; after > most {
						t.Errorf("%d signatures in vain in all, want %d at the most: %v", after, most, r.whys())
					}
					signed := r.key.signed.Load()
					for range 3600 {
						r.server.Rotate()
						r.server.RotateNonce()
						time.Sleep(time.Second)
					}
					if n := r.key.signed.Load() - signed; n != 0 {
						t.Errorf("%d signatures in the next hour", n)
					}
					r.twice()
				}, withPlaces(test.both))
			}
		})
	}
}

// TestIdleHourAfterABurst to several places at once.
func TestIdleHourAfterABurst(t *testing.T) {
	for _, burst := range []string{"ab", "tabu", "ttttaaaabbbb"} {
		signingAhead(t, policy{Offer: transporttest.OfferAlways}, func(r *aheadRig) {
			for range 2 {
				var wg sync.WaitGroup
				for _, place := range burst {
					wg.Go(func() { r.goes(place) })
				}
				wg.Wait()
				_, before := r.SignedAhead()
				time.Sleep(time.Hour)
				if _, after := r.SignedAhead(); after-before > 1 {
					t.Errorf("%s: %d in vain: %v", burst, after-before, r.whys())
				}
			}
		}, withPlaces(false))
	}
}

// TestForecastKeeps what Prepare was called for, whatever requests come before that one.
func TestForecastKeeps(t *testing.T) {
	for name, before := range map[string]string{"signed by Prepare": "", "signed already": "t"} {
		t.Run(name, func(t *testing.T) {
			signingAhead(t, policy{}, func(r *aheadRig) {
				for _, place := range before {
					r.goes(place)
					time.Sleep(time.Second)
				}
				if err := r.Prepare(r.request(r.t.Context())); err != nil {
					t.Fatal(err)
				}
				r.goes('a')
				time.Sleep(time.Second)
				if took := r.goes('t'); took != 0 {
					t.Errorf("took %s", took)
				}
			}, withPlaces(false))
		})
	}
}

// TestForecastOfTheBackground: nothing is signed ahead for what nobody waits for, and what
// is at hand for others stays.
func TestForecastOfTheBackground(t *testing.T) {
	signingAhead(t, policy{}, func(r *aheadRig) {
		inBackground := func(req *http.Request) *http.Request {
			return req.WithContext(keystore.InBackground(req.Context(), nil))
		}
		r.takes(inBackground)
		time.Sleep(time.Second)
		r.wants(1, 0)
		r.goes('a')
		time.Sleep(time.Second)
		r.takes(inBackground)
		time.Sleep(time.Second)
		if took := r.goes('a'); took != 0 {
			t.Errorf("took %s", took)
		}
		r.key.ahead.Add(-2) // what the requests were signed with
	}, withPlaces(false))
}

// TestForecastWithdraws what is being signed for another resource, so that nobody waits
// for it.
func TestForecastWithdraws(t *testing.T) {
	signingAhead(t, policy{}, func(r *aheadRig) {
		r.goes('a')
		time.Sleep(chipTime / 2)
		if took := r.goes('b'); took != chipTime {
			t.Errorf("took %s", took)
		}
		time.Sleep(time.Hour)
		if _, unused := r.SignedAhead(); unused != 2 || r.key.signed.Load() != 4 {
			t.Errorf("%d unused of %d: %v", unused, r.key.signed.Load(), r.whys())
		}
	}, withPlaces(false))
}
