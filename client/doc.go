// SPDX-License-Identifier: Apache-2.0

// Package client is one OAuth client instance at one authorization server,
// authenticated by OAuth 2.0 Attestation-Based Client Authentication
// (draft-ietf-oauth-attestation-based-client-auth-12).
//
// A [Client] binds together an issuer, a client_id, one Client Instance Key
// (package keystore, from a TPM by package tpm) and a way to get Client
// Attestations for that key (an [Attester]). It finds the server's endpoints by
// its metadata, gets and renews the attestation, and authenticates requests.
//
//	c, err := client.New(ctx, client.Config{
//		Issuer:   "https://as.example.com",
//		ClientID: "meter-firmware",
//		Store:    store, // from tpm.Open
//		Attester: client.HTTPAttester{URL: "https://attester.example.com"},
//	})
//	token, err := c.Token(ctx, "readings.write")
//
// # Calling a resource
//
// The HTTP client of [Client.ResourceClient] puts tokens on the requests for
// Config.Resources, and gets another token when a resource refuses one:
//
//	resp, err := c.ResourceClient("readings.write").Post("https://api.example.com/readings", "application/json", body)
//
// A [Resource] says whether it wants the attestation as well.
//
// # Any other grant
//
// golang.org/x/oauth2 runs it, over the Client's HTTP client:
//
//	endpoint, err := c.Endpoint(ctx)
//	config := oauth2.Config{ClientID: "meter-firmware", Endpoint: endpoint}
//	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.HTTPClient())
//	token, err := config.Exchange(ctx, code)
//
// Pushed authorization requests, CIBA, token exchange, introspection and
// revocation are plain form POSTs through the same HTTP client, to the endpoints
// in [Client.Metadata]; token exchange and CIBA's polls go to the token endpoint.
//
// Token sources of x/oauth2 keep the context that they are made with, and hold a lock
// while they fetch. So one stalled request holds up all who share the source.
// [Client.Token] has no such lock: each caller's context ends that caller's wait.
// [Client.TokenSource] is an x/oauth2 token source over it.
//
// # Failing early
//
// New sends nothing. A program that wants to know at its start whether issuer and
// attester can be reached and fit calls [Client.Metadata], and then [Client.Renew].
// [Client.Health] tells later how things stand.
//
// # Retry libraries
//
// A library that repeats requests, such as go-retryablehttp, goes around the Client's
// HTTP client. It never goes into Config.Base: there it would send one proof twice, and
// servers refuse that. The library should not repeat what cannot succeed, such as a
// request after a wrong PIN. [transport.Error] tells:
//
//	library.HTTPClient = c.HTTPClient()
//	library.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
//		var failed *transport.Error
//		if errors.As(err, &failed) && !failed.Temporary() {
//			return false, err
//		}
//		return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
//	}
//
// A Store of package tpm sends the TPM each wrong PIN once, however often a library
// repeats the request. Other Stores may count each try toward a lockout.
//
// # What to store
//
// The Store keeps the key, and Config.Cache the attestation. The program keeps refresh
// tokens, by [StoredToken.Write], before it does anything else with them. Nothing else
// needs to outlive the process. None of it is of use on another device.
//
// # What waits, and how long
//
// The Client does work once that several callers wait for: metadata and challenges (30
// seconds at the most), tokens of Token (2 minutes), attestations (3 minutes). The work
// goes on for 10 seconds after the last caller has given up. If a request for metadata,
// for a challenge, or for a token of Token has no answer after 5 seconds, the Client
// makes a second request beside it. The Client replaces that second one every 10 seconds.
// So a connection that has died holds nobody up for long, and no more than two requests
// are open. The Client never makes a second request to an attester, or with a refresh
// token or an authorization code.
//
// A second request has a connection of its own if Config.Base is an *http.Transport, as
// it is by default, or is of a Timekeeper. With another Base the Client cannot open one,
// and on HTTP/2 all requests to a server share a connection. Let such a Base send pings,
// with http.HTTP2Config's SendPingTimeout for example, so that it finds a dead
// connection. Pings also help the application's own requests, which the Client sends
// once, under any Base.
//
// # Hooks
//
// Hooks are Logger, Trace, Clock, Attester, Cache, Base and Claims. The Client holds no
// lock while it calls one, so a hook may call the Client. Such a call must not wait for
// the work that the hook belongs to. It fails at once in that case, if the hook passes on
// its own context. Log records and trace events come when that work is done.
//
// # Where credentials go
//
// Credentials go to the endpoints in the metadata of the configured issuer and to
// Config.Resources, and nowhere else. They go over TLS or to a loopback host, and never
// along a redirect. All other requests through HTTPClient pass through, without header
// fields of the attestation's two names.
//
// # When a key is lost
//
// An error that matches keystore.ErrKeyLost means that the device can no longer use its
// key, for example because its TPM was cleared. Refresh tokens and attestations of that
// key are lost, too, and a new key has to be enrolled. The Client never replaces a key by
// itself. Delete the key from the Store and make a new Client.
//
// # Where to find what
//
// The Client:
//
//   - config.go: Config, and what is wrong with one
//   - client.go: New, HTTPClient, Close
//   - roundtripper.go: the way of a request to the transport
//   - server.go: the authorization server, and the transport's table
//   - resource.go, resourceconfig.go: the protected resources, and what each wants
//   - metadata.go, resourcemetadata.go: their metadata, fetched and checked
//   - method.go: how the client authenticates, by configuration and metadata
//   - prepare.go: Prepare
//   - clock.go, observer.go: the device's clock, corrected by what the server says
//   - timekeeper.go, certificatetime.go, clockset_linux.go, clockset_other.go: what else is known of the time,
//     and certificates on a device whose clock is wrong
//   - logging.go, trace.go: the hooks
//
// Tokens:
//
//   - token.go: Token, TokenFor, TokenSource
//   - resourceclient.go: ResourceClient, which puts tokens on requests
//   - kepttokens.go: those that are kept, and how old they are
//   - tokenrequest.go, tokenresponse.go: x/oauth2's request, and answers that it cannot read
//   - tokenerror.go, advice.go: refusals, and what is known of their cause
//   - tokenkey.go: what tokens are bound to
//   - storedtoken.go: tokens over restarts, Refresh
//
// Attestations:
//
//   - attester.go: Attester, and what its errors mean
//   - attestations.go: the attestation of the key, asked for, renewed, cached
//   - held.go: those at hand, and when the attester may be asked
//   - renew.go: Renew, DropAttestation
//   - health.go: Health
//   - attestation.go, check.go, decode.go: one attestation, and what is checked of it
//   - deviations.go: profiles of the draft
//   - httpattester.go, attestererror.go, enrolment.go, evidence.go: pull
//   - pushattester.go, selfattester.go: push, and the instance itself
//   - cache.go: attestations over restarts
//   - registration.go: what to register the client with
package client
