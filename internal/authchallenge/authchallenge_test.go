// SPDX-License-Identifier: Apache-2.0

package authchallenge_test

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/authchallenge"
)

type challenge = authchallenge.Challenge

func params(pairs ...string) map[string]string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		fields []string
		want   []challenge
	}{
		"no field":                 {nil, nil},
		"empty field":              {[]string{""}, nil},
		"commas alone":             {[]string{" , ,\t,"}, nil},
		"scheme alone":             {[]string{"Negotiate"}, []challenge{{"Negotiate", params()}}},
		"quoted":                   {[]string{`DPoP error="use_dpop_nonce"`}, []challenge{{"DPoP", params("error", "use_dpop_nonce")}}},
		"token":                    {[]string{`DPoP error=use_dpop_nonce`}, []challenge{{"DPoP", params("error", "use_dpop_nonce")}}},
		"name in any case":         {[]string{`dPoP ErRoR="use_dpop_nonce"`}, []challenge{{"dPoP", params("error", "use_dpop_nonce")}}},
		"value keeps its case":     {[]string{`DPoP error="Use_DPoP_Nonce"`}, []challenge{{"DPoP", params("error", "Use_DPoP_Nonce")}}},
		"space around =":           {[]string{"DPoP error \t= \t\"x\" , a = b"}, []challenge{{"DPoP", params("error", "x", "a", "b")}}},
		"several parameters":       {[]string{`Bearer realm="r", error="x",scope=s`}, []challenge{{"Bearer", params("realm", "r", "error", "x", "scope", "s")}}},
		"empty list elements":      {[]string{`,, Bearer ,realm="r",, error="x",,`}, []challenge{{"Bearer", params("realm", "r", "error", "x")}}},
		"several schemes":          {[]string{`Bearer error="x", DPoP algs="ES256 ES384", error=y`}, []challenge{{"Bearer", params("error", "x")}, {"DPoP", params("algs", "ES256 ES384", "error", "y")}}},
		"schemes without any":      {[]string{`Negotiate, Bearer, DPoP error="y"`}, []challenge{{"Negotiate", params()}, {"Bearer", params()}, {"DPoP", params("error", "y")}}},
		"the same scheme twice":    {[]string{`Bearer error="x", Bearer error="y"`}, []challenge{{"Bearer", params("error", "x")}, {"Bearer", params("error", "y")}}},
		"several fields":           {[]string{`Bearer error="x"`, `DPoP error="y"`}, []challenge{{"Bearer", params("error", "x")}, {"DPoP", params("error", "y")}}},
		"separators in quotes":     {[]string{`Bearer realm="a, DPoP error=\"use_dpop_nonce\", b=c", error="x"`}, []challenge{{"Bearer", params("realm", `a, DPoP error="use_dpop_nonce", b=c`, "error", "x")}}},
		"escapes":                  {[]string{`Bearer error="\x\"\\"`}, []challenge{{"Bearer", params("error", `x"\`)}}},
		"empty quotes":             {[]string{`Bearer error="", realm=r`}, []challenge{{"Bearer", params("error", "", "realm", "r")}}},
		"first of two counts":      {[]string{`Bearer error="x", error="y", ERROR=z`}, []challenge{{"Bearer", params("error", "x")}}},
		"no closing quote":         {[]string{`Bearer realm="r", error="use_dpop_nonce`}, []challenge{{"Bearer", params("realm", "r", "error", "")}}},
		"backslash at the end":     {[]string{`Bearer error="x\`}, []challenge{{"Bearer", params("error", "")}}},
		"a field is on its own":    {[]string{`Bearer realm="r`, `DPoP error="y"`}, []challenge{{"Bearer", params("realm", "")}, {"DPoP", params("error", "y")}}},
		"parameter without scheme": {[]string{`error="x"`, `error="y", DPoP`}, []challenge{{"DPoP", params()}}},
		"not a token":              {[]string{`@@, Bearer error="x"`}, []challenge{{"Bearer", params("error", "x")}}},
		"no commas":                {[]string{`Bearer realm="r" error="x"`}, []challenge{{"Bearer", params("realm", "r", "error", "x")}}},
		"URL":                      {[]string{`DPoP resource_metadata="https://rs.example.com/.well-known/x?a=b,c"`}, []challenge{{"DPoP", params("resource_metadata", "https://rs.example.com/.well-known/x?a=b,c")}}},
		"other characters":         {[]string{"Bearer error=\"\xc3\xa4\x80\t \""}, []challenge{{"Bearer", params("error", "\xc3\xa4\x80\t ")}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := make(http.Header)
			for _, field := range test.fields {
				h.Add("Www-Authenticate", field)
			}
			got := authchallenge.Parse(h)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// What becomes of token68 itself does not matter: nothing that is looked for can
// be in it.
func TestParseToken68(t *testing.T) {
	var schemes, codes []string
	for _, c := range authchallenge.Parse(http.Header{"Www-Authenticate": {
		`Negotiate YWI==, DPoP error="y"`, `Negotiate oRQwEqADCgEAoQsGCSqGSIb3EgECAg==`, `Basic a/b+c=, Bearer error=x`,
	}}) {
		schemes = append(schemes, c.Scheme)
		codes = append(codes, c.Params["error"])
	}
	if !slices.Equal(schemes, []string{"Negotiate", "DPoP", "Negotiate", "Basic", "Bearer"}) || !slices.Equal(codes, []string{"", "y", "", "", "x"}) {
		t.Errorf("schemes %q, errors %q", schemes, codes)
	}
}

// Other fields than WWW-Authenticate are not read.
func TestParseOtherFields(t *testing.T) {
	h := http.Header{"Proxy-Authenticate": {`Bearer error="x"`}, "Authentication-Info": {`error="x"`}}
	if got := authchallenge.Parse(h); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

// FuzzParse: whatever a server sends, the parser ends, what it returns came from
// the field, and a well-formed challenge in a field before it is still found.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", `DPoP error="use_dpop_nonce"`, `Bearer realm="a, b", error=x, DPoP algs="ES256"`, `Negotiate YWI==`,
		`Bearer error="\"\\`, ",=,=", `a="`, `@, @@"`, "Basic a=b=c==, x", "\x00\xff", `Bearer error = "x" , , Basic`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got := authchallenge.Parse(http.Header{"Www-Authenticate": {`DPoP error="first"`, field}})
		if len(got) == 0 || got[0].Scheme != "DPoP" || got[0].Params["error"] != "first" || len(got[0].Params) != 1 {
			t.Fatalf("the first field became %q", got)
		}
		length := 0
		for _, c := range got[1:] {
			if c.Scheme == "" || !strings.Contains(field, c.Scheme) || strings.ContainsAny(c.Scheme, ` ",=`) {
				t.Errorf("scheme %q", c.Scheme)
			}
			length += len(c.Scheme)
			for name, value := range c.Params {
				if name == "" || name != strings.ToLower(name) || strings.ContainsAny(name, ` ",=`) {
					t.Errorf("parameter %q", name)
				}
				length += len(name) + len(value)
			}
		}
		if length > len(field) {
			t.Errorf("%d bytes out of %d", length, len(field))
		}
		// A field reads the same whatever other fields there are.
		again := authchallenge.Parse(http.Header{"Www-Authenticate": {field}})
		if !reflect.DeepEqual(again, got[1:]) && len(again)+len(got[1:]) > 0 {
			t.Errorf("%q alone, %q after another field", again, got[1:])
		}
	})
}
