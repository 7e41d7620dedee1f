// SPDX-License-Identifier: Apache-2.0

//go:build devicevm

package main

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func (l *vmLife) bootLog() {
	const log = "/sys/kernel/security/tpm0/binary_bios_measurements"
	if l.sh("stat -c %G "+log) != "tss" {
		lines := l.journal(0)
		if n, starts := matching(lines, "level=WARN", "the boot log is not sent"), matching(lines, "msg=starting"); n == 0 || n > starts {
			l.Errorf("%d warnings of a log that cannot be read, in %d starts", n, starts)
		}
		l.sh("rm -r /var/lib/private/instancekey-device/attestations")
		l.sh(readme(l.T, "systemd-tmpfiles --create"))
		l.goesOn()
	}
	here := l.sh("wc -c <" + log)
	if sent := l.largestLog(); sent < 500 || strconv.FormatInt(sent, 10) != here {
		l.Errorf("a boot log of %d bytes was sent; here it has %s", sent, here)
	}
}

func (l *vmLife) ima() {
	l.sh(`printf "measure func=BPRM_CHECK\nmeasure func=FILE_MMAP mask=MAY_EXEC\n" >/sys/kernel/security/ima/policy; tpm2_pcrread -Q sha256:10`)
	if n, _ := strconv.Atoi(l.sh("wc -l </sys/kernel/security/ima/ascii_runtime_measurements")); n < 20 {
		l.Errorf("IMA has measured %d files", n)
	}
	l.startAt(time.Now(), allButKey) // and is attested beside it
}

func (l *vmLife) serversAway() {
	mark := len(l.journal(0))
	l.network(false)
	l.logs(mark, "level=WARN", "calls fail")
	time.Sleep(5 * time.Second)
	l.network(true)
	l.goesOn()
	if n := matching(l.journal(mark), "level=WARN"); n != 1 {
		l.Errorf("%d warnings in an outage:\n%s", n, strings.Join(l.journal(mark), "\n"))
	}
	l.logs(mark, "level=INFO", "calls work")
}

func (l *vmLife) attesterAway() {
	l.attester.set(true)
	defer l.attester.set(false)
	asked := l.attester.count("/challenge")
	l.sh("systemctl restart instancekey-device")
	l.goesOn()
	if n := l.attester.count("/challenge"); n != asked {
		l.Errorf("the attester was asked %d times", n-asked)
	}
}

func (l *vmLife) tokenRefused() {
	mark, tokens := len(l.journal(0)), l.authServer.count("/token")
	l.refuse()
	l.goesOn()
	if n := l.authServer.count("/token") - tokens; n != 1 {
		l.Errorf("%d token requests, want 1", n)
	}
	if n := matching(l.journal(mark), "calls fail"); n != 0 {
		l.Errorf("%d lines of calls that fail", n)
	}
}

func (l *vmLife) refreshEnds() {
	mark := len(l.journal(0))
	as := l.authServer.handler
	l.authServer.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "grant_type=refresh_token") {
			answer(rw, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		as.ServeHTTP(rw, r)
	}))
	defer l.authServer.serve(as)
	l.refuse()
	l.goesOn()
	l.logs(mark, "level=WARN", "refresh token has ended")
}
