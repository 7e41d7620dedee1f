// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf16"
)

// A badAnswer is malformed, late, or a proxy's.
type badAnswer struct {
	name   string
	answer func(req *http.Request, good func() (*http.Response, error)) (*http.Response, error)
	late   bool   // and otherwise good
	only   string // where it may come from; "": anywhere
}

// badAnswers returns all of them.
func badAnswers() []badAnswer {
	var all []badAnswer
	add := func(answers ...badAnswer) { all = append(all, answers...) }
	const page = "<!DOCTYPE html><html><head><title>Sign in to the network</title></head></html>"
	for _, code := range []int{
		101, 103, 201, 202, 204, 205, 206, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 413, 417,
		418, 421, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 530, 599, 999,
	} {
		add(answered(strconv.Itoa(code), code, page, "Content-Type", "text/html", "Location", "https://portal.example.net/", "Retry-After", "3600"))
	}
	for _, code := range []int{204, 304, 401, 403, 404, 429, 503} {
		add(answered(strconv.Itoa(code)+" and nothing else", code, ""))
	}
	for name, body := range map[string]string{
		"nothing": "", "page of a portal": page, "null": "null", "true": "true", "number": "0", "text": `"text"`, "list": "[]", "list of objects": "[{}]", "empty object": "{}",
		"open object": "{", "NUL": "\x00\x00", "spaces": strings.Repeat(" ", 100<<10), "deep": strings.Repeat(`{"a":`, 20000), "deep list": strings.Repeat("[", 20000),
		"other object": `{"status":"ok","message":"please sign in"}`, "error": `{"error":"proxy_error"}`, "null error": `{"error":null}`, "error object": `{"error":{"code":1}}`,
		"XML": `<?xml version="1.0"?><ok/>`, "JSONP": "callback({})", "form": "a=b&c=d", "huge": strings.Repeat("x", 2<<20), "huge object": `{"a":"` + strings.Repeat("x", 2<<20) + `"}`,
	} {
		add(answered("200 "+name, 200, body, "Content-Type", "application/json"))
	}
	for _, code := range []int{400, 401} {
		for name, body := range map[string]string{
			"no code": `{}`, "number": `{"error":42}`, "null": `{"error":null}`, "challenge wanted, none given": `{"error":"use_attestation_challenge"}`,
			"nonce wanted, none given": `{"error":"use_dpop_nonce"}`, "twice": `{"error":"a","error":"b"}`, "cut": `{"error":"use_attest`, "list": `[{"error":"invalid_client"}]`,
			"title": `{"title":"Forbidden","status":403}`,
		} {
			add(answered(strconv.Itoa(code)+" error "+name, code, body, "Content-Type", "application/json"))
		}
	}
	add(
		garbled("cut in the middle", func(b []byte) []byte { return b[:len(b)/2] }),
		garbled("cut at the end", func(b []byte) []byte { return b[:max(len(b)-2, 0)] }),
		garbled("followed by a page", func(b []byte) []byte { return append(b, page...) }),
		garbled("twice", func(b []byte) []byte { return append(b, b...) }),
		garbled("in a list", func(b []byte) []byte { return []byte("[" + string(b) + "]") }),
		garbled("in an object", func(b []byte) []byte { return []byte(`{"data":` + string(b) + "}") }),
		garbled("quoted", func(b []byte) []byte { return []byte(strconv.Quote(string(b))) }),
		garbled("with a BOM", func(b []byte) []byte { return append([]byte("\xef\xbb\xbf"), b...) }),
		garbled("not UTF-8", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`":"`), []byte("\":\"\xff")) }),
		garbled("with control characters", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`":"`), []byte("\":\"\x07")) }),
		garbled("UTF-16", utf16Of, "Content-Type", "application/json; charset=utf-16"),
		garbled("gzip without saying so", gzipOf),
		garbled("gzip that is none", func(b []byte) []byte { return b }, "Content-Encoding", "gzip"),
		garbled("upper case", bytes.ToUpper),
		garbled("padded", func(b []byte) []byte { return append(bytes.Repeat([]byte(" "), 3<<20), b...) }),
		each("members that are null", func(json.RawMessage) string { return "null" }),
		each("members that are numbers", func(json.RawMessage) string { return "17" }),
		each("members that are negative", func(json.RawMessage) string { return "-1" }),
		each("members that are large", func(json.RawMessage) string { return "1e400" }),
		each("members that are objects", func(v json.RawMessage) string { return `{"value":` + string(v) + "}" }),
		each("members that are lists", func(v json.RawMessage) string { return "[" + string(v) + "]" }),
		each("members that are empty", func(json.RawMessage) string { return `""` }),
		each("members that are true", func(json.RawMessage) string { return "true" }),
		each("members that are spaces", func(json.RawMessage) string { return `" "` }),
		each("members that are long", func(json.RawMessage) string { return `"` + strings.Repeat("x", 100<<10) + `"` }),
	)
	for _, shape := range []string{"3600.0", "3.6e3", `""`, `"3600"`, "null", "-1", "1e400", "[]", "{}", "true", `"soon"`, "99999999999999999999", "0", "0.5"} {
		answer := garbled("expires_in "+shape, func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"expires_in":300`), []byte(`"expires_in":`+shape), 1)
		})
		answer.only = fromToken
		add(answer)
	}
	for name, fields := range map[string][]string{
		"Date of 1970": {"Date", "Thu, 01 Jan 1970 00:00:00 GMT"}, "Date that is none": {"Date", "yesterday"}, "Date of 2107": {"Date", "Mon, 07 Feb 2107 06:28:15 GMT"},
		"empty Date": {"Date", ""}, "Age": {"Age", "86400", "Date", "Sat, 21 Nov 2026 12:00:00 GMT"}, "no type": {"Content-Type", ""}, "text type": {"Content-Type", "text/plain"},
		"odd type": {"Content-Type", "application/json; charset"}, "other charset": {"Content-Type", "application/json; charset=koi8-r"}, "form type": {"Content-Type", "application/x-www-form-urlencoded"},
		"empty challenge": {"OAuth-Client-Attestation-Challenge", ""}, "empty nonce": {"DPoP-Nonce", ""}, "long challenge": {"OAuth-Client-Attestation-Challenge", strings.Repeat("c", 100<<10)},
		"long nonce": {"DPoP-Nonce", strings.Repeat("n", 100<<10)}, "odd Retry-After": {"Retry-After", "-1"}, "odd WWW-Authenticate": {"WWW-Authenticate", `DPoP error="`},
		"a long field": {"X-Padding", strings.Repeat("x", 200<<10)}, "Set-Cookie": {"Set-Cookie", "session=portal"},
	} {
		add(garbled("field: "+name, func(b []byte) []byte { return b }, fields...))
	}
	for name, err := range map[string]error{
		"end of file": io.EOF, "unexpected end": io.ErrUnexpectedEOF, "reset": &net.OpError{Op: "read", Err: syscall.ECONNRESET}, "refused": &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		"no host": &net.DNSError{Err: "no such host", IsNotFound: true}, "timeout": &net.DNSError{Err: "timeout", IsTimeout: true}, "no certificate": errors.New("tls: handshake failure"),
		"malformed": errors.New("net/http: malformed HTTP response"), "canceled": context.Canceled,
	} {
		add(badAnswer{name: "error: " + name, answer: func(*http.Request, func() (*http.Response, error)) (*http.Response, error) { return nil, err }})
	}
	for _, after := range []time.Duration{900 * time.Millisecond, 3 * time.Second, 6 * time.Second, 20 * time.Second, 29 * time.Second, 50 * time.Second} {
		add(late(after))
	}
	never := late(10 * time.Hour)
	never.late = false
	add(never)
	add(slow("the body comes slowly", 10*time.Millisecond, nil), slow("the body stalls", time.Hour, nil), slow("the body breaks off", 0, io.ErrUnexpectedEOF), slow("the body is reset", 0, syscall.ECONNRESET))
	return all
}

// answered is an answer that somebody else gives.
func answered(name string, status int, body string, fields ...string) badAnswer {
	return badAnswer{name: name, answer: func(*http.Request, func() (*http.Response, error)) (*http.Response, error) {
		resp := &http.Response{StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header), Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1}
		for i := 0; i < len(fields); i += 2 {
			resp.Header.Set(fields[i], fields[i+1])
		}
		return resp, nil
	}}
}

// garbled is the good answer with another body and other header fields.
func garbled(name string, change func([]byte) []byte, fields ...string) badAnswer {
	return badAnswer{name: name, answer: func(_ *http.Request, good func() (*http.Response, error)) (*http.Response, error) {
		resp, err := good()
		if err != nil {
			return nil, err
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(bytes.NewReader(change(body)))
		resp.ContentLength = -1
		for i := 0; i < len(fields); i += 2 {
			resp.Header.Set(fields[i], fields[i+1])
		}
		return resp, nil
	}}
}

// each is the good answer with other members.
func each(name string, change func(json.RawMessage) string) badAnswer {
	return garbled(name, func(body []byte) []byte {
		var members map[string]json.RawMessage
		if json.Unmarshal(body, &members) != nil {
			return body
		}
		for member, value := range members {
			members[member] = json.RawMessage(change(value))
		}
		changed, err := json.Marshal(members)
		if err != nil {
			return body
		}
		return changed
	})
}

func utf16Of(body []byte) (encoded []byte) {
	for _, unit := range utf16.Encode([]rune(string(body))) {
		encoded = append(encoded, byte(unit>>8), byte(unit))
	}
	return encoded
}

func gzipOf(body []byte) []byte {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(body)
	_ = w.Close()
	return packed.Bytes()
}

// late is the good answer after some time.
func late(after time.Duration) badAnswer {
	return badAnswer{name: "late by " + after.String(), late: true, answer: func(req *http.Request, good func() (*http.Response, error)) (*http.Response, error) {
		resp, err := good()
		select {
		case <-req.Context().Done():
			return nil, req.Context().Err()
		case <-time.After(after):
			return resp, err
		}
	}}
}

// slow is the good answer with a body that comes byte by byte, or with an error.
func slow(name string, pace time.Duration, err error) badAnswer {
	return badAnswer{name: name, answer: func(req *http.Request, good func() (*http.Response, error)) (*http.Response, error) {
		resp, failed := good()
		if failed == nil {
			resp.Body = &slowBody{resp.Body, req.Context(), pace, err, 0}
		}
		return resp, failed
	}}
}

type slowBody struct {
	io.ReadCloser
	ctx  context.Context
	pace time.Duration
	err  error
	read int
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.read++; b.err != nil && b.read > 3 {
		return 0, b.err
	}
	select {
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	case <-time.After(b.pace):
		return b.ReadCloser.Read(p[:min(len(p), 1)])
	}
}
