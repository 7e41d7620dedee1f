// SPDX-License-Identifier: Apache-2.0

package strictjwt_test

import (
	"errors"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/strictjwt"
)

// p256 is the example key of the draft, section 4.
const p256 = `"kty":"EC","crv":"P-256","x":"VcKVNBZ4IaBAYW3jxM4w3TJFVA7myeUGQyGt-g_yvpQ","y":"f-E-hYE3TAWKwhVv9pej9NABs9SX9XsNO80x57jFTyU"`

func TestPublicKey(t *testing.T) {
	_, thumbprint, err := strictjwt.PublicKey([]byte(`{"use":"sig",` + p256 + `}`))
	if err != nil || thumbprint != "Ak20Cf62SpTybasujYXbaI-Ms655MyvOZCtnnf8y1QU" {
		t.Errorf("thumbprint %s, %v", thumbprint, err)
	}
	cases := map[string]error{
		``: strictjwt.ErrMalformed, `null`: strictjwt.ErrMalformed, `[]`: strictjwt.ErrMalformed, `"x"`: strictjwt.ErrMalformed, `{}`: strictjwt.ErrMalformed,
		`{` + p256 + `,"kty":"EC"}`:                        strictjwt.ErrMalformed,
		`{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}`: strictjwt.ErrMalformed,
		`{"kty":"OKP","crv":"X25519","x":"AAAA"}`:          strictjwt.ErrMalformed,
		`{"kty":"oct"}`:              strictjwt.ErrMalformed,
		`{"kty":"oct","k":"AAAA"}`:   strictjwt.ErrPrivateKey,
		`{` + p256 + `,"d":"AAAA"}`:  strictjwt.ErrPrivateKey,
		`{` + p256 + `,"d":null}`:    strictjwt.ErrPrivateKey,
		`{` + p256 + `,"oth":[]}`:    strictjwt.ErrPrivateKey,
		`{"kty":"RSA","p":"AAAA"}`:   strictjwt.ErrPrivateKey,
		`{"kty":"AKP","priv":"AAA"}`: strictjwt.ErrPrivateKey,
	}
	for jwk, want := range cases {
		if key, _, err := strictjwt.PublicKey([]byte(jwk)); !errors.Is(err, want) || key != nil {
			t.Errorf("%s: %v, %v; want %v", jwk, key, err, want)
		}
	}
	if len(cases) != 15 {
		t.Errorf("%d cases, want 15", len(cases))
	}
}
