// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/authserver"
)

// An attester and an authorization server that trusts it, in one process. Each
// needs its own URL before it is made, so the listeners come first.
func Example() {
	attesterHTTP := httptest.NewUnstartedServer(nil)
	serverHTTP := httptest.NewUnstartedServer(nil)
	attesterURL := "http://" + attesterHTTP.Listener.Addr().String()
	issuer := "http://" + serverHTTP.Listener.Addr().String()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	clientAttester, err := attester.New(attester.Config{
		URL:     attesterURL,
		Clients: []string{"abca-client"},
		Key:     jose.JSONWebKey{Key: key, KeyID: "2026-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	server, err := authserver.New(authserver.Config{
		Issuer:       issuer,
		Clients:      []authserver.Client{{ID: "abca-client", Scopes: []string{"telemetry"}}},
		AttesterKeys: clientAttester.JWKS(),
		Challenges:   &authserver.ChallengeConfig{Endpoint: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	attesterHTTP.Config.Handler, serverHTTP.Config.Handler = clientAttester, server
	attesterHTTP.Start()
	defer attesterHTTP.Close()
	serverHTTP.Start()
	defer serverHTTP.Close()

	response, err := http.Post(issuer+"/token", "application/x-www-form-urlencoded", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %s", response.Status, answer)
	// Output: 401 Unauthorized {"error":"invalid_client"}
}
