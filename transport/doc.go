// SPDX-License-Identifier: Apache-2.0

// Package transport authenticates HTTP requests with OAuth 2.0
// Attestation-Based Client Authentication: it is the [http.RoundTripper] that
// adds a Client Attestation and a proof of possession (PoP JWT) to each request
// to an authorization server (draft-ietf-oauth-attestation-based-client-auth,
// -12).
//
// Most programs use package client, which finds the endpoints, gets the
// attestation and hands out an *http.Client with this transport inside. Use
// this package directly when you have those yourself.
//
// # What it does with a request
//
// A POST to one of the configured endpoints gets, for each time it is sent:
//
//   - the Client Attestation of the [AttestationSource];
//   - the most recent challenge of the server, from whichever response it came,
//     or one from the challenge endpoint if none is at hand;
//   - a PoP JWT over it, signed by the Client Instance Key, with its own jti.
//
// With [MethodDPoP] a DPoP proof by the Client Instance Key takes the place of
// challenge and PoP JWT; with Config.DPoPKey a proof goes beside them.
//
// If the server asks for another challenge, for a fresh attestation or for another DPoP
// nonce, the Transport sends the request again, provided that its body can be repeated.
// http.NewRequest sees to that for the usual body types. A request is sent four times at
// the most, and not again for the same cause twice in a row. The caller gets all other
// answers as they are. [Sends] and [Refused] tell what has become of the request.
//
// The fields Idempotency-Key and X-Idempotency-Key are removed from such a
// request: with one of them net/http sends a POST again on its own when a reused
// connection breaks, and the server would see one jti twice. A resource gets them, in
// lower case, by which net/http does not know them.
//
// # Signing ahead
//
// A TPM takes 200 ms or more for a signature. With Config.SignAhead a request does not
// wait for it if it follows another request of its kind. Shortly after a response the
// Transport signs, in the background, the PoP JWT for the next request to that server or
// resource, with the newest challenge. Where DPoP proofs are by the Client Instance Key,
// it also signs one for the same method and URL; for a resource, it does so once these
// were repeated. [Transport.Prepare] signs before a first request, or one after a long
// time. Of requests at the same time one has its proof at hand; the others wait for the
// key as without.
//
// Such a proof is sent once, within SignAhead. It is thrown away when it is older, by its
// iat, which has whole seconds, or when there is a newer challenge, another attestation or
// another table of servers and resources, or when the clock was set. A challenge of a server that takes each
// once is kept for it, and goes to another request if the proof is not sent. Requests with
// bound messages, bodies or claims of the caller's are never signed ahead.
//
// Whoever waits for the key has it first, also with other keys in the same device, where
// their Store heeds [keystore.InBackground]. No PIN is asked for in the background, and
// nothing is signed ahead for a request that is itself in the background.
//
// When requests cease, what was signed for the next one is in vain. That is one signature,
// however many servers and resources there are: proofs are signed ahead for one of them at
// a time, where the next request is expected to go. That is where the request after one
// like this went before, or to the same again. Where requests come in no order, the proof
// waits for one of its kind. The second proof of a request that carries two is signed ahead
// once the first was of use: where such requests have followed one another, what is in
// vain is two signatures. Nothing is signed anew before the next request, whatever the
// servers do meanwhile. [Trace].Unused and [Transport.SignedAhead] tell how many were in vain.
//
// # Servers and resources that change
//
// [Transport.Update] replaces them all, when metadata has changed for example. A
// request goes on by what was there when it began. What is known of a server's
// challenges stays with it. A POST to what was an endpoint is not sent any more.
//
// # Resources
//
// The caller puts the access token into the Authorization field of a request to a
// configured protected resource. The Transport adds attestation and PoP, and a DPoP proof
// if the token is DPoP-bound. Each resource has its own challenge and nonce, even if it
// has the origin of the authorization server.
//
// net/http repeats a GET by itself when a reused connection breaks before the answer
// comes. The resource then sees one jti twice, and may answer with an error. It is safe
// to send the request anew.
//
// # Everything else
//
// Every other request passes through. The Transport removes header fields of the two
// names that belong to this package, and changes nothing else.
//
// # Redirects
//
// On a redirect net/http forwards custom header fields to any host. Therefore the
// Transport sets credentials on a copy of the request, and refuses a redirect away from
// an authenticated request with [ErrRedirect].
//
// The documentation of net/http says that a RoundTripper should not handle
// authentication. This one does: each HTTP request needs a PoP of its own, and only a
// RoundTripper sees each request.
//
// # Where to find what
//
// In the order in which a request meets them:
//
//   - transport.go: Config, New, RoundTrip, Close
//   - table.go: the servers and resources there are, and Update
//   - route.go: which of them a request is for, and with which DPoP key; redirects
//   - attempt.go: the sends of a request, from the first to the last
//   - take.go: the challenge for the next proof, at hand or fetched
//   - pool.go: what is known of an audience's challenges, and how that is learnt
//   - freshness.go: challenges and DPoP nonces of an audience together
//   - fetch.go: the challenge endpoint
//   - bind.go: a message, or the request's body, that a PoP vouches for
//   - proof.go: the claims of PoP JWTs and DPoP proofs
//   - signer.go: the key and its turns
//   - signahead.go: proofs that are signed before their requests are made
//   - forecast.go: for which request that is
//   - ahead.go: those that are at hand
//   - hold.go: their challenges
//   - prepare.go: Prepare
//   - header.go: the header fields, and how large they may be
//   - refusal.go: the error codes of a response
//   - echo.go: what of a server's text can be shown
//   - outcome.go: what a response tells of its request
//   - errors.go: steps, and the Error of a request
//   - trace.go: the hooks
//   - names.go: names on the wire, methods, profiles
package transport
