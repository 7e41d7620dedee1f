// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// provisioned is an attestation that was put onto the device beforehand.
type provisioned struct{ jwt string }

func (p provisioned) Attestation(_ context.Context, rejected string, _ []string) (string, error) {
	if rejected == p.jwt {
		return "", fmt.Errorf("the server wants a newer attestation than the provisioned one")
	}
	return p.jwt, nil
}

func (p provisioned) Judged(_ string, good bool) {
	if !good {
		fmt.Println("the server refused the provisioned attestation")
	}
}

// The values in the examples come from the application: the key from a Store,
// the attestation from a Client Attester, the URLs from the server's metadata.
var (
	key         keystore.Key
	attestation string
)

// A Transport under an ordinary http.Client.
func ExampleNew() {
	rt, err := transport.New(transport.Config{
		Key:          key,
		Attestations: provisioned{attestation},
		Servers: []transport.Server{{
			Issuer:            "https://as.example.com",
			Endpoints:         []string{"https://as.example.com/token"},
			ChallengeEndpoint: "https://as.example.com/challenge",
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := &http.Client{Transport: rt}
	resp, err := client.PostForm("https://as.example.com/token", url.Values{
		"grant_type": {"client_credentials"},
		"client_id":  {"my-client"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
}

// A Transport under golang.org/x/oauth2.
func ExampleNew_oauth2() {
	rt, err := transport.New(transport.Config{
		Key:          key,
		Attestations: provisioned{attestation},
		Servers: []transport.Server{{
			Issuer:    "https://as.example.com",
			Endpoints: []string{"https://as.example.com/token"},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: rt})
	config := clientcredentials.Config{
		ClientID:  "my-client",
		TokenURL:  "https://as.example.com/token",
		AuthStyle: oauth2.AuthStyleInParams, // found out otherwise by trial, with a request that fails
	}
	token, err := config.Token(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(token.Type())
}

// Where credentials may go is said once, exactly; all else passes through.
func ExampleTransport_Audience() {
	rt, err := transport.New(transport.Config{
		Key:          exampleKey,
		Attestations: provisioned{"a.b.c"},
		Servers: []transport.Server{{
			Issuer:    "https://as.example.com",
			Endpoints: []string{"https://as.example.com/token"},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, place := range []string{"https://as.example.com/token", "https://as.example.com/token/x", "https://elsewhere.example/token"} {
		req, err := http.NewRequest(http.MethodPost, place, strings.NewReader("grant_type=client_credentials"))
		if err != nil {
			fmt.Println(err)
			return
		}
		audience, _ := rt.Audience(req)
		fmt.Printf("%s: %q\n", place, audience)
	}
	// Output:
	// https://as.example.com/token: "https://as.example.com"
	// https://as.example.com/token/x: ""
	// https://elsewhere.example/token: ""
}

var exampleKey = newKey()
