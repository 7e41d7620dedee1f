// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
)

// tokenEndpoint returns a Client whose server answers token requests with page.
func tokenEndpoint(t testing.TB, page http.HandlerFunc, edits ...func(*client.Config)) *client.Client {
	d := newDiscoverer(t, issuerURL, edits...)
	d.site.set(wellKnown, text(document(issuerURL, nil)))
	d.site.set("https://as.example.com/token", page)
	return d.Client
}

// TestTokenResponses: what servers write in odd ways is read, and what says nothing
// counts as not said.
func TestTokenResponses(t *testing.T) {
	const forever = 0
	for name, test := range map[string]struct {
		members string        // of the answer, beside the tokens and the type
		life    time.Duration // of the token; forever: without an end; negative: over
	}{
		"number":               {`"expires_in":3600`, time.Hour},
		"fraction of zero":     {`"expires_in":3600.0`, time.Hour},
		"fraction":             {`"expires_in":3600.75`, time.Hour},
		"exponent":             {`"expires_in":3.6e3`, time.Hour},
		"capital exponent":     {`"expires_in":36E+2`, time.Hour},
		"negative exponent":    {`"expires_in":36000000e-4`, time.Hour},
		"text":                 {`"expires_in":"3600"`, time.Hour},
		"text with fraction":   {`"expires_in":"3600.0"`, time.Hour},
		"text with space":      {`"expires_in":" 3600\n"`, time.Hour},
		"text with exponent":   {`"expires_in":"3.6e3"`, time.Hour},
		"other case":           {`"Expires_In":3600.0`, time.Hour},
		"less than a second":   {`"expires_in":0.5`, time.Second},
		"empty text":           {`"expires_in":""`, forever},
		"space":                {`"expires_in":"  "`, forever},
		"null":                 {`"expires_in":null`, forever},
		"null as text":         {`"expires_in":"null"`, forever},
		"words":                {`"expires_in":"one hour"`, forever},
		"unit":                 {`"expires_in":"3600s"`, forever},
		"hexadecimal":          {`"expires_in":"0x10"`, forever},
		"plus":                 {`"expires_in":"+3600"`, forever},
		"not a number":         {`"expires_in":"NaN"`, forever},
		"infinite":             {`"expires_in":"Inf"`, forever},
		"true":                 {`"expires_in":true`, forever},
		"list":                 {`"expires_in":[3600]`, forever},
		"object":               {`"expires_in":{"seconds":3600}`, forever},
		"zero":                 {`"expires_in":0`, forever}, // as x/oauth2 has it
		"zero with a fraction": {`"expires_in":0.0`, forever},
		"left out":             {`"scope":"a"`, forever},
		"31 bits":              {`"expires_in":2147483647`, (1<<31 - 1) * time.Second},
		"32 bits":              {`"expires_in":4294967295`, (1<<31 - 1) * time.Second},
		"64 bits":              {`"expires_in":9223372036854775807`, (1<<31 - 1) * time.Second},
		"more than 64 bits":    {`"expires_in":92233720368547758070`, (1<<31 - 1) * time.Second},
		"huge exponent":        {`"expires_in":1e400`, (1<<31 - 1) * time.Second},
		"many digits":          {`"expires_in":` + strings.Repeat("9", 5000), (1<<31 - 1) * time.Second},
		"negative":             {`"expires_in":-1`, -time.Second},
		"negative text":        {`"expires_in":"-3600.5"`, -time.Hour},
		"negative 33 bits":     {`"expires_in":-4294967295`, -(1<<31 - 1) * time.Second}, // x/oauth2 alone makes 1 of it
		"negative and huge":    {`"expires_in":-1e400`, -(1<<31 - 1) * time.Second},
		"description null":     {`"expires_in":3600,"error":null,"error_description":null`, time.Hour},
		"errors of odd types":  {`"expires_in":3600,"error":false,"error_description":{},"error_uri":7`, time.Hour},
		"other odd members":    {`"expires_in":3600,"scope":["a"],"id_token":7,"x":1e400`, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			c := tokenEndpoint(t, text(`{"access_token":"ACCESS","token_type":"Bearer","refresh_token":"NEXT",`+test.members+`}`))
			for grant, get := range map[string]func() (*oauth2.Token, error){
				"Token":   func() (*oauth2.Token, error) { return c.Token(t.Context()) },
				"Refresh": func() (*oauth2.Token, error) { return c.Refresh(t.Context(), "OLD") },
			} {
				before := time.Now()
				token, err := get()
				if err != nil || token.AccessToken != "ACCESS" || token.RefreshToken != "NEXT" {
					t.Fatalf("%s: %v", grant, err)
				}
				switch life := token.Expiry.Sub(before).Round(time.Second); {
				case test.life == forever:
					if !token.Expiry.IsZero() {
						t.Errorf("%s: expiry %v, want none", grant, token.Expiry)
					}
				case life-test.life > 30*time.Second || life < test.life:
					t.Errorf("%s: lives %v, want %v", grant, life, test.life)
				}
				if token.Valid() != (test.life == forever || test.life > 10*time.Second) {
					t.Errorf("%s: valid: %t", grant, token.Valid())
				}
			}
		})
	}
}

// TestTokenResponsesAreReadAsTheyAre: nothing is lost of what an app may look for.
func TestTokenResponsesAreReadAsTheyAre(t *testing.T) {
	for name, page := range map[string]http.HandlerFunc{
		"plain":  text(`{"access_token":"a","token_type":"Bearer","expires_in":60,"big":12345678901234567890,"id_token":"i","scope":"b c"}`),
		"mended": text(`{"access_token":"a","token_type":"Bearer","expires_in":60.0,"big":12345678901234567890,"id_token":"i","scope":"b c"}`),
		"BOM":    text("\xef\xbb\xbf" + `{"access_token":"a","token_type":"Bearer","expires_in":60,"id_token":"i","scope":"b c"}`),
		"as text": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, `{"access_token":"a","token_type":"Bearer","expires_in":60.0,"id_token":"i","scope":"b c"}`)
		},
		"a form": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-www-form-urlencoded")
			_, _ = io.WriteString(w, `access_token=a&token_type=Bearer&expires_in=60&id_token=i&scope=b+c`)
		},
		"a form as text": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, `access_token=a&token_type=Bearer&expires_in=60&id_token=i&scope=b+c`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := tokenEndpoint(t, page).Token(t.Context())
			if err != nil || token.AccessToken != "a" || token.Extra("id_token") != "i" || token.Extra("scope") != "b c" || token.Expiry.IsZero() {
				t.Errorf("%+v, %v", token, err)
			}
		})
	}
}

// TestRefreshTokenIsNeverLost: the server has spent the old one by the time its
// answer turns out to be of no use.
func TestRefreshTokenIsNeverLost(t *testing.T) {
	for name, test := range map[string]struct {
		page http.HandlerFunc
		next string // "" if nothing tells it
	}{
		"no access token":       {text(`{"token_type":"Bearer","refresh_token":"NEXT"}`), "NEXT"},
		"access token a number": {text(`{"access_token":7,"token_type":"Bearer","refresh_token":"NEXT"}`), "NEXT"},
		"of another type":       {text(`{"access_token":"a","token_type":"mac","refresh_token":"NEXT"}`), "NEXT"},
		"type a number":         {text(`{"access_token":"a","token_type":7,"refresh_token":"NEXT"}`), "NEXT"},
		"error beside it":       {text(`{"error":"x","refresh_token":"NEXT"}`), "NEXT"},
		"cut short":             {text(`{"refresh_token":"NEXT","access_token":"AC`), "NEXT"},
		"cut short after it":    {text(`{"refresh_token":"NEXT"`), "NEXT"},
		"more after it":         {text(`{"access_token":"a","refresh_token":"NEXT"}<html>`), "NEXT"},
		"BOM and cut short":     {text("\xef\xbb\xbf" + `{"refresh_token":"NEXT","access_token":"AC`), "NEXT"},
		"more than a megabyte":  {text(`{"refresh_token":"NEXT","access_token":"a","x":"` + strings.Repeat("x", 1<<20) + `"}`), "NEXT"},
		"cut short within it":   {text(`{"access_token":"a","refresh_token":"NEX`), ""},
		"deep inside":           {text(`{"x":{"refresh_token":"NEXT"}}`), ""},
		"empty":                 {text(`{"refresh_token":""}`), ""},
		"a list":                {text(`["refresh_token","NEXT"]`), ""},
		"nothing":               {text(``), ""},
		"HTML":                  {text(`<html>refresh_token`), ""},
		"a refusal": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":"invalid_grant","refresh_token":"NEXT"}`)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := tokenEndpoint(t, test.page).Refresh(t.Context(), "OLD")
			switch {
			case err == nil:
				t.Errorf("token %t, no error", token != nil)
			case strings.Contains(err.Error(), "NEXT"):
				t.Errorf("error tells the token: %v", err)
			case test.next == "" && token != nil:
				t.Errorf("token %+v", token)
			case test.next != "" && (token == nil || token.RefreshToken != test.next || token.AccessToken != "" || token.Valid()):
				t.Errorf("token %t, want the next refresh token alone (%v)", token != nil, err)
			}
		})
	}
}

// cutting ends the bodies of token responses with an error after their last byte.
type cutting struct{ http.RoundTripper }

func (c cutting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(req)
	if err == nil && req.Method == http.MethodPost {
		resp.Body = io.NopCloser(io.MultiReader(resp.Body, iotest.ErrReader(io.ErrUnexpectedEOF)))
	}
	return resp, err
}

func TestRefreshTokenIsNotLostWithTheConnection(t *testing.T) {
	c := tokenEndpoint(t, text(`{"token_type":"Bearer","refresh_token":"NEXT","access_token":"AC`), func(cfg *client.Config) { cfg.Base = cutting{cfg.Base} })
	token, err := c.Refresh(t.Context(), "OLD")
	var failure *transport.Error
	if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &failure) || !failure.Temporary() {
		t.Errorf("error %v, want that of the connection", err)
	}
	if token == nil || token.RefreshToken != "NEXT" || token.AccessToken != "" {
		t.Errorf("token %t, want the next refresh token alone", token != nil)
	}
}

// FuzzTokenResponse: whatever a server answers, it is a token or an error, and a
// refresh token that golang.org/x/oauth2 would have found is not lost.
func FuzzTokenResponse(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"a","token_type":"Bearer","expires_in":3600.0,"refresh_token":"r"}`, `{"expires_in":"","error":{}}`, `{"expires_in":-1e999}`,
		`{"refresh_token":"r","access_token":"`, "\xef\xbb\xbf{}", `null`, `{"expires_in":"\u0031"}`, `access_token=a&expires_in=3.5`, `{"EXPIRE\u017f_IN":1.5,"access_token":"a"}`,
	} {
		f.Add([]byte(seed), "application/json")
		f.Add([]byte(seed), "text/plain")
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		page := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(body)
		}
		alone := oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: "https://as.example.com/token", AuthStyle: oauth2.AuthStyleInParams}}
		network := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: inProcess{http.HandlerFunc(page)}})
		want, wantErr := alone.TokenSource(network, &oauth2.Token{RefreshToken: "OLD"}).Token()
		got, err := tokenEndpoint(t, page).Refresh(t.Context(), "OLD")
		if wantErr != nil {
			if err == nil && got.AccessToken == "" {
				t.Fatalf("%+v", got)
			}
			return
		}
		if got == nil || got.RefreshToken != want.RefreshToken || err == nil && got.AccessToken != want.AccessToken {
			t.Fatalf("%+v, %v, want %+v", got, err, want)
		}
	})
}
