// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// maxRetryAfter bounds how long an attester can silence an instance that it
// may not be able to reach otherwise.
const maxRetryAfter = time.Hour

// AttesterError is an answer of another status than 200 to a request to the Client
// Attester. Only one with an error code is the attester's own word: others come from
// what is in between, a proxy, a filter or a captive portal, whatever their status.
//
// It matches ErrAttestationRefused for 403 with a code, and ErrAttesterUnavailable
// for 429 and 5xx, and for all answers without a code.
type AttesterError struct {
	URL         string // what was asked; may be empty in one that was not made by an HTTPAttester
	Status      int    // HTTP status
	Code        string // "error" of the answer, such as "policy_violation"; "" if it is not the attester's
	Description string // "error_description" beside the code
	// RetryAfter is how long the attester wants to be left alone, by its
	// Retry-After header field, and an hour at most; 0 if it does not say. A Client
	// heeds one without a code for 10 minutes at most.
	RetryAfter time.Duration
}

// Error quotes the answer's code and description, cut where they are long.
func (e *AttesterError) Error() string {
	text := "client: attester"
	if e.URL != "" {
		text += " at " + e.URL
	}
	text += fmt.Sprintf(" answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Code == "" {
		text += ", and not in its own form: perhaps a proxy or filter answered in its place"
	} else {
		text += fmt.Sprintf(": %.100q", e.Code)
	}
	if e.Description != "" {
		text += fmt.Sprintf(" (%.200q)", e.Description)
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(", retry after %s", e.RetryAfter)
	}
	return text
}

// Is reports what the answer means for asking again.
func (e *AttesterError) Is(target error) bool {
	switch target {
	case ErrAttestationRefused:
		return e.Status == http.StatusForbidden && e.Code != ""
	case ErrAttesterUnavailable:
		return e.Code == "" || e.Status == http.StatusTooManyRequests || e.Status >= 500
	}
	return false
}

// Temporary reports whether asking again later may help.
func (e *AttesterError) Temporary() bool { return e.Is(ErrAttesterUnavailable) }

// unexpected is the error for an answer of status 200 that the attester has not
// given: the page of a captive portal, for example.
func (c *attesterCall) unexpected(path string) error {
	return fmt.Errorf("%w: the answer of %s is not in an attester's form: perhaps a proxy or captive portal answered in its place", ErrAttesterUnavailable, c.endpoint(path))
}

// attesterError reads an answer of another status than 200 from url.
func attesterError(url string, resp *http.Response, body []byte, now time.Time) error {
	e := &AttesterError{URL: url, Status: resp.StatusCode}
	var answer struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	if canRefuse(e.Status) && json.Unmarshal(body, &answer) == nil && isErrorCode(answer.Code) {
		e.Code, e.Description = answer.Code, answer.Description
	}
	// Whoever answers for an attester that is overloaded may say for how long it is.
	overloaded := e.Status == http.StatusTooManyRequests || e.Status >= 500 && canRefuse(e.Status)
	if e.Code != "" || overloaded {
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	}
	return e
}

// canRefuse reports whether an attester answers with that status. Two statuses of
// errors are by their definitions those of proxies and of captive portals.
func canRefuse(status int) bool {
	return status >= 400 && status != http.StatusProxyAuthRequired && status != http.StatusNetworkAuthenticationRequired
}

// isErrorCode reports whether text has the form of an error code: lower-case words
// with underscores. Gateways have a member "error", too, with a status's name.
func isErrorCode(text string) bool {
	return text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// retryAfter reads a Retry-After header field (RFC 9110, section 10.2.3): seconds,
// or a date.
func retryAfter(value string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(value, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then it is the largest
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}
