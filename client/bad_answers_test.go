// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A spoiledRun is when a bad answer comes: first of all, or long after good ones, when
// there is something to lose.
type spoiledRun struct {
	name   string
	policy transporttest.Policy
	edit   func(*client.Config)
	warm   func(where string) time.Duration // how long after the first use; 0: it is the first
}

var spoiledRuns = []spoiledRun{
	{"first", transporttest.Policy{}, func(*client.Config) {}, func(string) time.Duration { return 0 }},
	{"later", transporttest.Policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferNever, Nonces: true},
		func(cfg *client.Config) { cfg.DPoP = client.DPoPOwnKey },
		func(where string) time.Duration {
			switch where {
			case fromMetadata, fromResourceMetadata:
				return 25 * time.Hour
			case fromAttester, fromAttesterChallenge:
				return 55 * time.Minute // of an hour
			default:
				return 6 * time.Minute
			}
		}},
}

// raceDetector says that all takes many times as long: half of the answers do then at
// each place, which is another half at the next.
var raceDetector bool

// TestNoBadAnswerSticks: ten minutes after one bad answer between good ones the Client
// behaves as if there had been none, with one request more at the most; and a second
// after an answer that was only late.
func TestNoBadAnswerSticks(t *testing.T) {
	answers := badAnswers()
	places := []string{fromMetadata, fromChallenge, fromToken, fromAttesterChallenge, fromAttester, fromResourceMetadata, fromResource}
	for i, run := range spoiledRuns {
		for k, where := range places {
			t.Run(run.name+"/"+where, func(t *testing.T) {
				t.Parallel()
				r := newSpoiledRig(t, run.policy)
				good := r.spoiledUse(t, run, where, garbled("good", func(b []byte) []byte { return b }))
				count := 0
				for j, answer := range answers {
					if answer.only != "" && answer.only != where || raceDetector && j%2 != (i+k)%2 {
						continue
					}
					count++
					t.Run(answer.name, func(t *testing.T) {
						for whose, n := range r.spoiledUse(t, run, where, answer) {
							if n > good[whose]+1 {
								t.Errorf("%d requests: %s, want %d and one more at the most", n, whose, good[whose])
							}
						}
					})
				}
				if count < 60 {
					t.Errorf("%d bad answers, want 60 at least", count)
				}
			})
		}
	}
	t.Logf("%d bad answers at %d places in %d runs", len(answers), len(places), len(spoiledRuns))
}

// spoiledUse uses a Client while there is one bad answer, and ten minutes later. It
// returns how many requests there were.
func (r *spoiledRig) spoiledUse(t *testing.T, run spoiledRun, where string, answer badAnswer) (requests map[string]int) {
	synctest.Test(t, func(t *testing.T) {
		r.begin(t, run.edit)
		must := func(when, scope string) {
			t.Helper()
			if err := r.use(t, scope); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		if wait := run.warm(where); wait > 0 {
			must("before", "scope")
			pass(wait)
		}
		r.spoil(where, answer)
		err := r.use(t, "scope")
		if answer.late {
			pass(time.Second)
			must("a second later", "scope")
		}
		synctest.Wait()
		if r.given != 1 {
			t.Errorf("%d bad answers were given, want 1: %v", r.given, err)
		}
		pass(10 * time.Minute)
		for i, scope := range []string{"scope", "other"} {
			must(fmt.Sprintf("ten minutes after %v, use %d", err, i+1), scope)
		}
		requests = r.counts()
	})
	return requests
}
