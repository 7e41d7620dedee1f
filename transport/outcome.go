// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/http"
)

// An outcome is what a response tells of its request. It is that request's context.
type outcome struct {
	context.Context               // the caller's
	request         *http.Request // that the response names
	sent            *sent         // the credentials; a pointer, so that a copy can be printed
	sends           int
	refusal
}

type outcomeKey struct{}

// Value finds the outcome itself, too.
func (o *outcome) Value(key any) any {
	if key == (outcomeKey{}) {
		return o
	}
	return o.Context.Value(key)
}

// returned makes a response fit for the caller: the request that it names is
// the caller's, since what was sent holds credentials.
func returned(resp *http.Response, req *http.Request, sent *sent, a attempt, refused refusal) *http.Response {
	o := &outcome{Context: req.Context(), sent: sent, sends: a.number, refusal: refused}
	o.request = req.WithContext(o)
	resp.Request = o.request
	return resp
}

// outcomeOf returns the outcome of a request that a Transport has authenticated, and
// an empty one for any other. The request's context alone does not tell: another
// request may have been made with it.
func outcomeOf(resp *http.Response) outcome {
	if resp == nil || resp.Request == nil {
		return outcome{}
	}
	if o, _ := resp.Request.Context().Value(outcomeKey{}).(*outcome); o != nil && o.request == resp.Request {
		return *o
	}
	return outcome{}
}

// Sends returns how often a request was sent until this response came: 1 to 4
// for one that a Transport has authenticated, 0 for any other.
func Sends(resp *http.Response) int { return outcomeOf(resp).sends }

// Refused returns what the server says when it refuses (400 or 401) a request that a
// Transport has authenticated: the OAuth error code, and the description for people
// (error_description). They are in the response's body, or in its WWW-Authenticate field,
// which some authorization servers and all resources use. Both are "" if there are none.
//
// Code and description are the server's text: at most 100 and 200 printable ASCII
// characters. Refused returns "" for a text that repeats a credential of the request, or
// may repeat one. The latter is so if the request's body cannot be read again by its
// GetBody, since the body may contain a credential.
func Refused(resp *http.Response) (code, description string) {
	o := outcomeOf(resp)
	if echoesBody(o.description, o.request) {
		return o.code, ""
	}
	return o.code, o.description
}

// Repeats reports whether text may repeat a credential of the request that resp answers,
// by the rule of [Refused]. A Transport must have authenticated that request. Use Repeats
// before you show or log other parts of an answer. It compares the credentials of all
// sends.
func Repeats(resp *http.Response, text string) bool {
	o := outcomeOf(resp)
	return o.request != nil && (echoes(text, o.sent.secrets()) || echoesBody(text, o.request))
}
