package transport_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

type policy = transporttest.Policy

// TestC27FetchesBeforeTheFirstRequest: one request for the challenge, one for
// the token; warm, the token alone.
func TestC27FetchesBeforeTheFirstRequest(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK)
	f.counts(1, 1)
	for range 3 {
		f.token(http.StatusOK)
	}
	f.counts(4, 1)
	if n := f.server.Refused(); n != 0 {
		t.Errorf("%d PoPs refused", n)
	}
}

// TestC31ChallengeRequest: what is sent to the endpoint.
func TestC31ChallengeRequest(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK)
	r := f.server.Requests(transporttest.Challenge)[0]
	if r.Method != http.MethodPost || len(r.Body) != 0 || r.Header.Get("Accept") != "application/json" || r.Header.Get("Content-Length") != "" && r.Header.Get("Content-Length") != "0" {
		t.Errorf("%s with a body of %d bytes, header %v", r.Method, len(r.Body), r.Header)
	}
	for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP, transport.HeaderDPoP, "Authorization", "Idempotency-Key"} {
		if r.Header.Values(name) != nil {
			t.Errorf("challenge request with %s", name)
		}
	}
}

// TestC31EndpointAnswers: what the endpoint may answer, and what comes of it.
func TestC31EndpointAnswers(t *testing.T) {
	type answer struct {
		status      int
		contentType string
		header      string // challenge
		body        string
	}
	tests := []struct {
		name   string
		answer answer
		sent   string // challenge of the first PoP
		err    string
	}{
		{name: "body", answer: answer{body: `{"attestation_challenge":"in-body"}`}, sent: "in-body"},
		{name: "other members", answer: answer{body: `{"a":[{}],"attestation_challenge":"in-body","expires_in":5}`}, sent: "in-body"},
		{name: "body and header", answer: answer{header: "in-header", body: `{"attestation_challenge":"in-body"}`}, sent: "in-body"},
		{name: "header alone", answer: answer{header: "in-header", body: `{}`}, sent: "in-header"},
		{name: "none", answer: answer{body: `{}`}},
		{name: "any characters", answer: answer{body: `{"attestation_challenge":"<&>\"\\é\u2028 ="}`}, sent: "<&>\"\\é\u2028 ="},
		{name: "content type is not looked at", answer: answer{contentType: "text/plain", body: `{"attestation_challenge":"in-body"}`}, sent: "in-body"},
		{name: "twice", answer: answer{body: `{"attestation_challenge":"a","attestation_challenge":"b"}`}, err: "JSON"},
		{name: "number", answer: answer{body: `{"attestation_challenge":5}`}, err: "JSON"},
		{name: "other case", answer: answer{body: `{"Attestation_Challenge":"a"}`}},
		{name: "array", answer: answer{body: `["attestation_challenge"]`}, err: "JSON"},
		{name: "HTML", answer: answer{contentType: "text/html", body: `<html>login</html>`}, err: "JSON"},
		{name: "cut short", answer: answer{body: `{"attestation_challenge":"a"`}, err: "JSON"},
		{name: "more behind it", answer: answer{body: `{"attestation_challenge":"a"}{}`}, err: "JSON"},
		{name: "huge challenge", answer: answer{body: `{"attestation_challenge":"` + strings.Repeat("a", 5000) + `"}`}, err: "5000 bytes"},
		{name: "huge body", answer: answer{body: `{"attestation_challenge":"a","x":"` + strings.Repeat("a", 1<<20) + `"}`}, err: "65536 bytes"},
		{name: "500", answer: answer{status: 500, body: `{"attestation_challenge":"a"}`}, err: "500"},
		{name: "302", answer: answer{status: 302}, err: "302"},
		{name: "400", answer: answer{status: 400, body: `{"error":"invalid_request"}`}, err: "400"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.NoChallenges})
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
					if r.Endpoint != transporttest.Challenge {
						return false
					}
					if test.answer.header != "" {
						w.Header().Set(transport.HeaderChallenge, test.answer.header)
					}
					w.Header().Set("Content-Type", "application/json")
					if test.answer.contentType != "" {
						w.Header().Set("Content-Type", test.answer.contentType)
					}
					if test.answer.status == 302 {
						w.Header().Set("Location", f.server.Trap.URL)
					}
					if test.answer.status != 0 {
						w.WriteHeader(test.answer.status)
					}
					fmt.Fprint(w, test.answer.body)
					return true
				}
			})
			if test.err != "" {
				err := f.fail(f.request(t.Context()))
				if !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %q does not say %q", err, test.err)
				}
				f.counts(0, 1)
				if n := f.server.Trap.Visits(); n != 0 {
					t.Errorf("%d requests followed a redirect", n)
				}
				return
			}
			f.token(http.StatusOK)
			f.counts(1, 1)
			if got := f.sent()[0]; got != test.sent {
				t.Errorf("challenge %q, want %q", got, test.sent)
			}
			f.token(http.StatusOK)
			if test.sent == "" {
				f.counts(2, 1) // an endpoint without challenges is not asked again
			}
		})
	}
}

// TestC26MostRecentChallengeWins: from whichever response it came (C32).
func TestC26MostRecentChallengeWins(t *testing.T) {
	answers := []struct {
		name   string
		change func(*policy)
		req    func(*fixture) *http.Request
		status int
	}{
		{"token 200", func(*policy) {}, nil, 200},
		{"PAR 201", func(*policy) {}, func(f *fixture) *http.Request {
			return newRequest(f.t, f.t.Context(), f.server.Endpoint(transporttest.PAR))
		}, 201},
		{"401 invalid_client", func(p *policy) { p.UnknownClient = true }, nil, 401},
		{"418 that is no JSON", func(p *policy) { p.UnknownClient, p.Status, p.ContentType = true, 418, "text/html" }, nil, 418},
		{"503", func(p *policy) { p.UnknownClient, p.Status = true, 503 }, nil, 503},
	}
	for _, test := range answers {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways})
			f.server.Set(test.change)
			req := f.request(t.Context())
			if test.req != nil {
				req = test.req(f)
			}
			f.want(test.status, req)
			answered := f.server.Requests(transporttest.Token, transporttest.PAR)[0]
			if answered.Offered() == "" {
				t.Fatal("the server offered nothing")
			}
			f.server.Set(func(p *policy) { p.UnknownClient, p.Status = false, 0 })
			f.server.Forget()
			f.token(http.StatusOK)
			f.counts(1, 0)
			if got := f.sent()[0]; got != answered.Offered() {
				t.Errorf("sent %q, want the challenge of that response, %q", got, answered.Offered())
			}
		})
	}
}

// TestC32RetriesAreLookedAtToo: contract line 7.
func TestC32RetriesAreLookedAtToo(t *testing.T) {
	for name, status := range map[string]int{"retry success": 200, "retry failure": 400} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways, NoEndpoint: true})
			f.server.Set(func(p *policy) { p.RefuseAll = status == 400 })
			f.token(status)
			f.counts(2, 0)
			last := f.server.Requests(transporttest.Token)[1]
			f.server.Set(func(p *policy) { p.RefuseAll = false })
			f.server.Forget()
			f.token(http.StatusOK)
			f.counts(1, 0)
			if got := f.sent()[0]; got != last.Offered() {
				t.Errorf("sent %q, want the last one offered, %q", got, last.Offered())
			}
		})
	}
}

// TestC29RetriesOnceWithTheChallengeOfTheError: test 4.
func TestC29RetriesOnceWithTheChallengeOfTheError(t *testing.T) {
	for _, status := range []int{400, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			f := newFixture(t, policy{Status: status})
			f.token(http.StatusOK)
			f.clock.advance(time.Hour) // old enough that its refusal says nothing about the server's kind
			f.server.Rotate()
			f.server.Forget()
			f.token(http.StatusOK)
			f.counts(2, 0)
			requests := f.server.Requests(transporttest.Token)
			if requests[0].Status != status {
				t.Fatalf("the refusal was a %d", requests[0].Status)
			}
			if requests[1].PoP.Challenge != requests[0].Offered() {
				t.Errorf("the retry had %q, want the error's own %q", requests[1].PoP.Challenge, requests[0].Offered())
			}
			if requests[0].PoP.ID == requests[1].PoP.ID {
				t.Error("the retry had the same jti")
			}
			f.token(http.StatusOK)
			f.counts(3, 0)
			if sent := f.sent(); sent[2] != sent[1] {
				t.Errorf("then sent %q, want the accepted %q", sent[2], sent[1])
			}
		})
	}
}

// TestC29StoresTheChallengeOfTheRetrysResponse: test 4, last part.
func TestC29StoresTheChallengeOfTheRetrysResponse(t *testing.T) {
	f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways, NoEndpoint: true})
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	f.counts(3, 0)
	if got, want := f.sent()[2], f.server.Requests(transporttest.Token)[1].Offered(); got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// TestC30NeverRetriesWithoutEnd: contract line 5, test 5.
func TestC30NeverRetriesWithoutEnd(t *testing.T) {
	tests := []struct {
		name               string
		policy             policy
		tokens, challenges int
	}{
		{"a new challenge each time", policy{RefuseAll: true}, 2, 1},
		{"a new challenge each time, single use", policy{RefuseAll: true, Kind: transporttest.SingleUse}, 2, 1},
		{"no endpoint", policy{RefuseAll: true, NoEndpoint: true}, 2, 0},
		{"the same challenge", policy{RefuseAll: true, RepeatRefused: true}, 1, 1},
		{"the same challenge, no endpoint", policy{RefuseAll: true, RepeatRefused: true, NoEndpoint: true}, 2, 0},
		{"no header", policy{RefuseAll: true, Offer: transporttest.OfferNever}, 2, 2},
		{"no header, no endpoint", policy{RefuseAll: true, Offer: transporttest.OfferNever, NoEndpoint: true}, 1, 0},
		{"huge challenge", policy{RefuseAll: true, ChallengeBytes: 5000, NoEndpoint: true}, 1, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, test.policy)
			f.token(http.StatusBadRequest)
			f.counts(test.tokens, test.challenges)
			if sent := f.sent(); len(sent) == 2 && sent[0] == sent[1] {
				t.Errorf("the refused challenge %q was sent again", sent[0])
			}
		})
	}
}

// TestRefusalWithoutHeader: the endpoint is asked once; what it repeats is not
// sent again; if it fails, the caller gets the server's answer.
func TestRefusalWithoutHeader(t *testing.T) {
	endpoint := func(f *fixture, status int, body string) {
		f.server.Set(func(p *policy) {
			p.RefuseAll, p.Offer = true, transporttest.OfferNever
			p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
				if r.Endpoint == transporttest.Challenge {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					fmt.Fprint(w, body)
				}
				return r.Endpoint == transporttest.Challenge
			}
		})
	}
	t.Run("endpoint repeats the challenge", func(t *testing.T) {
		f := newFixture(t, policy{})
		endpoint(f, 200, `{"attestation_challenge":"always this"}`)
		f.token(http.StatusBadRequest)
		f.counts(1, 2)
	})
	t.Run("endpoint fails", func(t *testing.T) {
		f := newFixture(t, policy{})
		f.token(http.StatusOK)
		f.server.Forget()
		endpoint(f, 503, "")
		resp, err := f.RoundTrip(f.request(t.Context()))
		if err != nil {
			t.Fatalf("error %v, want the server's refusal", err)
		}
		if body := read(t, resp); resp.StatusCode != 400 || !strings.Contains(body, "use_attestation_challenge") {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
		f.counts(1, 1)
	})
	t.Run("endpoint has none", func(t *testing.T) {
		f := newFixture(t, policy{})
		f.token(http.StatusOK)
		f.server.Forget()
		endpoint(f, 200, `{}`)
		f.token(http.StatusBadRequest)
		f.counts(1, 1)
	})
}

// TestNoEndpointSendsTheLastOneSeen: decision 4, and the table of the
// contract's third measurement.
func TestNoEndpointSendsTheLastOneSeen(t *testing.T) {
	for _, test := range []struct {
		name  string
		kind  transporttest.Kind
		sends int // for ten requests
	}{{"time window", transporttest.Reusable, 11}, {"single use", transporttest.SingleUse, 20}} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: test.kind, NoEndpoint: true})
			for range 10 {
				f.token(http.StatusOK)
			}
			f.counts(test.sends, 0)
		})
	}
	t.Run("also if the retry was lost", func(t *testing.T) {
		f := newFixture(t, policy{NoEndpoint: true})
		f.token(http.StatusOK)
		f.server.Rotate()
		f.server.Forget()
		f.server.Set(func(p *policy) {
			n := 0
			p.Before = func(transporttest.Request) {
				if n++; n == 2 {
					f.server.Set(func(p *policy) { p.Cut = true })
				}
			}
		})
		f.fail(f.request(t.Context()))
		f.counts(2, 0)
		f.server.Set(func(p *policy) { p.Cut, p.Before = false, nil })
		f.token(http.StatusOK)
		f.counts(3, 0)
		if sent := f.sent(); sent[2] != sent[1] {
			t.Errorf("sent %q, want the last one seen", sent)
		}
	})
}

// TestC28KindIsLearnt: which refusals make a server count as single-use. It
// shows in whether an accepted challenge is used again.
func TestC28KindIsLearnt(t *testing.T) {
	tests := []struct {
		name      string
		age       time.Duration // of the challenge when it is refused
		accepted  int           // how often it had been, before
		singleUse bool
	}{
		{"reused and young", 59 * time.Second, 1, true},
		{"reused and old", 61 * time.Second, 1, false},
		{"accepted twice and young", 0, 2, false}, // the server was started anew
		{"first use", 0, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{})
			for range test.accepted {
				f.token(http.StatusOK)
			}
			f.clock.advance(test.age)
			f.server.Set(func(p *policy) {
				p.Before = func(r transporttest.Request) {
					if r.Endpoint == transporttest.Token {
						f.server.Rotate()
						f.server.Set(func(p *policy) { p.Before = nil })
					}
				}
			})
			f.token(http.StatusOK) // refused, then accepted
			if n := f.server.Refused(); n != 1 {
				t.Fatalf("%d refusals; the server saw:\n%s", n, f.history())
			}
			f.server.Forget()
			f.token(http.StatusOK)
			want := 0
			if test.singleUse {
				want = 1
			}
			f.counts(1, want)
		})
	}
	t.Run("answered, but not with success", func(t *testing.T) {
		f := newFixture(t, policy{Kind: transporttest.SingleUse})
		f.server.Set(func(p *policy) { p.Intercept = unavailable })
		for range 3 {
			f.token(http.StatusServiceUnavailable)
		}
		f.server.Set(func(p *policy) { p.Intercept = nil })
		f.token(http.StatusOK)
		f.token(http.StatusOK) // refused, then accepted
		f.server.Forget()
		f.token(http.StatusOK)
		f.counts(1, 1)
	})
}

// unavailable answers token requests without having looked at them.
func unavailable(w http.ResponseWriter, r transporttest.Request) bool {
	if r.Endpoint != transporttest.Token {
		return false
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

// TestEveryNthRefused: a server that refuses good challenges now and then costs
// one more send each time, and no request fails.
func TestEveryNthRefused(t *testing.T) {
	f := newFixture(t, policy{RefuseEvery: 4, Offer: transporttest.OfferAlways})
	for range 20 {
		f.token(http.StatusOK)
	}
	if n, refused := f.server.Count(transporttest.Token), f.server.Refused(); n != 20+refused || refused < 5 {
		t.Errorf("%d sends, %d refusals", n, refused)
	}
	ids := make(map[string]bool)
	for _, r := range f.server.Requests(transporttest.Token) {
		ids[r.PoP.ID] = true
	}
	if len(ids) != f.server.Count(transporttest.Token) {
		t.Errorf("%d different jti", len(ids))
	}
}

// TestSingleUseSequential: no challenge is sent twice, and none refused, once a
// refusal has shown the kind.
func TestSingleUseSequential(t *testing.T) {
	for _, offer := range []transporttest.Offer{transporttest.OfferInErrors, transporttest.OfferAlways} {
		t.Run(fmt.Sprint(offer), func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.SingleUse})
			f.token(http.StatusOK)
			f.token(http.StatusOK) // is refused first
			if n := f.server.Refused(); n != 1 {
				t.Fatalf("%d refusals", n)
			}
			f.server.Set(func(p *policy) { p.Offer = offer })
			f.server.Forget()
			for range 10 {
				f.token(http.StatusOK)
			}
			if n := f.server.Refused(); n != 0 {
				t.Errorf("%d refusals", n)
			}
			fetches := 10
			if offer == transporttest.OfferAlways {
				fetches = 1
			}
			f.counts(10, fetches)
			sent := f.sent()
			slices.Sort(sent)
			if len(slices.Compact(sent)) != 10 {
				t.Error("a challenge was sent twice")
			}
		})
	}
}
