// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"net/http"
	"time"
)

// A Policy is how a Server behaves. The zero value is a strict server without
// malice: it has a challenge endpoint, wants a challenge that it takes any
// number of times but for a refusal now and then, and gives one with its errors.
type Policy struct {
	// Kind is what the server does with challenges.
	Kind Kind
	// Offer is which responses carry a challenge in their header.
	Offer Offer
	// NoEndpoint takes the challenge endpoint away.
	NoEndpoint bool
	// ChallengeBytes is the length of challenges; 0 means 22 bytes.
	ChallengeBytes int

	// NoRandomRefusals is for tests that count requests. Without it the server
	// refuses one good challenge in ten, at random, so that the tests of every
	// client meet what a challenge that has gone bad on its way looks like. It
	// never refuses at random a challenge that it gave with an error, so one
	// retry always does, and nothing where its refusals bring no good challenge:
	// with OfferNever or RepeatRefused.
	NoRandomRefusals bool
	// RefuseEvery refuses every Nth challenge that is good, with a new one;
	// 0 refuses none.
	RefuseEvery int
	// RefuseAll refuses every challenge.
	RefuseAll bool
	// RepeatRefused offers the challenge that is just being refused.
	RepeatRefused bool

	// Window is how far "iat" may be from the server's clock, either way; 0
	// means 15 s.
	Window time.Duration
	// UnknownClient answers invalid_client to what is otherwise in order.
	UnknownClient bool

	// Combined wants a DPoP proof by the Client Instance Key in place of the
	// PoP JWT. Challenges then play no part.
	Combined bool
	// Nonces wants a DPoP nonce in every DPoP proof, and gives one with its
	// errors, with the answers of the challenge endpoint and, if Offer is
	// OfferAlways, with every response.
	Nonces bool

	// Status is the HTTP status of errors; 0 means the draft's.
	Status int
	// Body is the form of error bodies.
	Body BodyForm
	// ContentType is that of error bodies; "" means application/json.
	ContentType string

	// Redirect answers every request with this status (302, 307, 308) and the
	// address of the Trap; 0 redirects none.
	Redirect int
	// Cut closes the connection without an answer once the request was read.
	Cut bool
	// Early answers without reading the request's body.
	Early bool

	// Before is called when a request was read and not yet judged, After when
	// it was judged and not yet answered; both may block (see [Gate]), and may
	// call [Server.Set], which After sees too late for the same request.
	Before, After func(Request)
	// Intercept, if it returns true, has answered the request itself. It
	// comes after Before, and such a request is not judged.
	Intercept func(http.ResponseWriter, Request) bool
	// Answer, if it is not nil, answers the requests that were judged good: with
	// tokens, for example. A member "error" of an answer is the code of a refusal.
	Answer func(Request) (status int, answer map[string]any)
}

// refusesAtRandom reports whether the server refuses good challenges at random.
func (p Policy) refusesAtRandom() bool {
	return !p.NoRandomRefusals && !p.RepeatRefused && p.Offer != OfferNever
}

// Kind is what a server does with challenges.
type Kind int

const (
	Reusable     Kind = iota // takes a challenge any number of times, until Server.Rotate
	SingleUse                // takes each challenge once, and makes a new one for each answer that has one
	NoChallenges             // wants none and gives none
)

// Offer is which responses carry OAuth-Client-Attestation-Challenge.
type Offer int

const (
	OfferInErrors Offer = iota // use_attestation_challenge errors, as a server must
	OfferAlways                // every response
	OfferNever                 // none, not even errors that ask for a challenge
)

// BodyForm is a form of error bodies.
type BodyForm int

const (
	PlainBody     BodyForm = iota // a JSON object
	HugeBody                      // a JSON object of 1 MiB
	GzipBody                      // a JSON object, with Content-Encoding: gzip
	DuplicateBody                 // a JSON object that has "error" twice, the real code last
)
