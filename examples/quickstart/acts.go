// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An act is something that happens to a device, and how the authorization server
// is to take it.
type act struct {
	title      string
	device     *device
	version    string // what it boots
	secureBoot bool
	// later is how long it goes on running after a first token, until it asks
	// for the one that counts.
	later time.Duration

	expect       string // "token" or "refused"
	refused      string // the policy's error code, also if a token follows; "": none
	reason       string // the policy's, in the server's log
	attestations int    // how many it takes
}

const (
	token   = "token"
	refused = "refused"

	invalid     = "invalid_client_attestation"
	notFresh    = "use_fresh_attestation"
	noChallenge = "use_attestation_challenge"
)

// firmwareActs is the story of two devices and their firmware.
func firmwareActs(x1, x0 *device) []act {
	return []act{{
		title:  "A gateway boots the firmware that it left the factory with, 1.0: too old",
		device: x1, version: "1.0", secureBoot: true,
		expect: refused, refused: invalid, reason: "gateway-os has the version 1.0, and 2.0 is the least", attestations: 1,
	}, {
		title:  "It is updated to 2.0, boots, and is attested anew",
		device: x1, version: "2.0", secureBoot: true,
		expect: token, attestations: 1,
	}, {
		title:  "Somebody switches Secure Boot off",
		device: x1, version: "2.0",
		expect: refused, refused: invalid, reason: "oemboot is not true: the device did not boot its maker's software", attestations: 1,
	}, {
		title:  "Secure Boot is on again, and the firmware is 2.1, which its maker has recalled: a failed verdict",
		device: x1, version: "2.1", secureBoot: true,
		expect: refused, refused: invalid, reason: `ear_status is "contraindicated"`, attestations: 1,
	}, {
		title:  "Another device, of a model that gets no tokens, has good firmware",
		device: x0, version: "2.0", secureBoot: true,
		expect: refused, refused: invalid, reason: `model "Gateway X0" of 32473 is not one that gets tokens`, attestations: 1,
	}, {
		title:  "The gateway is back at 2.0, gets a token, and asks for another one two hours later: only its attestation is too old",
		device: x1, version: "2.0", secureBoot: true, later: 2 * time.Hour,
		expect: token, refused: notFresh, reason: "attestation is older than 1h0m0s", attestations: 2,
	}}
}

// played is an act as it went.
type played struct {
	Story  string `json:"story"`
	Act    int    `json:"act"` // from 1
	Title  string `json:"title"`
	Expect string `json:"expect"` // "token" or "refused"
	Got    string `json:"got"`    // "token", or the error code that the client got

	// Refused and Reason are the policy's decision in the authorization server's
	// log: the client gets the code alone, and may recover from it.
	Refused string `json:"refused,omitempty"`
	Reason  string `json:"reason,omitempty"`

	Attested     attested `json:"attested"`     // what the last attestation says
	Attestations int      `json:"attestations"` // how many there were
	AsTold       bool     `json:"as_told"`
}

// compare sets AsTold. Refusals that only ask for a new challenge are part of
// the protocol and of no story.
func (p *played) compare(a act, refusals []refusal) {
	policy := slices.DeleteFunc(slices.Clone(refusals), func(r refusal) bool { return r.code == noChallenge })
	if len(policy) > 0 {
		p.Refused, p.Reason = policy[0].code, policy[0].reason
	}
	want := token
	if a.expect == refused {
		want = a.refused
	}
	p.AsTold = p.Got == want && p.Refused == a.refused && p.Reason == a.reason && len(policy) <= 1 && p.Attestations == a.attestations
}

// String returns the act for people.
func (p played) String() string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, "    "+format+"\n", args...) }
	fmt.Fprintf(&text, "%d. %s\n", p.Act, p.Title)
	line("attested: %s", p.Attested)
	if p.Refused != "" {
		line("refused: %s", p.Refused)
		line("the server's log: %s", p.Reason)
	}
	if p.Got == token {
		if p.Refused != "" {
			line("the client gets a fresh attestation and tries again")
		}
		line("a token")
	}
	if !p.AsTold {
		line("THIS IS NOT AS TOLD: expected %s, got %s after %d attestations", p.Expect, p.Got, p.Attestations)
	}
	return text.String()
}
