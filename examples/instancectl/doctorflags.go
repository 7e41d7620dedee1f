// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"time"
)

// setupPatience is how long examining a set-up may take: a TPM may need a minute to make
// its endorsement key.
const setupPatience = 2 * time.Minute

const aboutDoctor = `Examines a device's TPM, with -keys the keys, and the clock, and says what to do. Changes nothing,
with one exception: a key file that another program has made gets the Name of the key's parent added, as
whenever the key signs. Keys without a PIN sign once; no PIN is tried. A warning is no failure.

With -client-id it examines what a token needs, too, before one is asked for: with -issuer the server, with
-attester (or -attestation, -self) who attests the instance. It gets a real attestation, for the key -name if
that is there and needs no PIN or has one in -pin-file, and otherwise for a key that is made for it alone. It authenticates
where that has no effect: it asks about, or revokes, a token that does not exist, or refreshes one.
Other flags are those that token is to have. Without -store the servers alone are examined, with a key in software.`

// doctorFlags are those of doctor. What is about the client is as for token.
type doctorFlags struct {
	clientFlags
	scope string
	json  bool
}

func (f *doctorFlags) register(fs *flag.FlagSet) {
	f.store.RegisterDefaults(fs, requiredTPM+" without -issuer and -attester", "default: no keys are examined")
	f.registerClient(fs, "with -client-id it is examined; without, its clock alone is compared, by a HEAD request",
		"required with -attester, -attestation and -self", "one of -attester, -attestation, -self at the most")
	fs.StringVar(&f.grant, "grant", grantClient, "the `grant` that token is to use: client_credentials, refresh_token or device_code")
	fs.StringVar(&f.scope, "scope", "", "`scopes` that token is to ask for, separated by spaces")
	fs.DurationVar(&f.timeout, "timeout", patience, "how long the command may take; 2m with -client-id, if this is left out")
	fs.BoolVar(&f.json, "json", false, "print one JSON object on one line for each check: check, status (ok, warn or fail), found and advice")
}

func (f *doctorFlags) check() error {
	asks := f.issuer != "" || f.attester != "" || f.attestation != "" || f.self != ""
	if f.store.Store != "" || !asks {
		if err := f.store.Check(); err != nil {
			return usageError{err}
		}
	}
	switch {
	case f.store.Store == "soft" && !asks:
		return errNeedsTPM
	case f.attesters() > 1:
		return badUsage("give one of -attester, -attestation, -self at the most")
	case f.attesters() > 0 && f.clientID == "":
		return badUsage("-client-id is missing")
	case f.clientID != "" && !asks:
		return badUsage("-client-id is for -issuer or -attester, which are missing")
	case f.attestation != "" && (f.store.Store == "" || f.store.Keys == ""):
		return badUsage("-attestation is for a key that exists: -store and -keys say where it is")
	case f.attestation != "" && f.issuer == "" && f.name == "":
		return badUsage("give -name, or the -issuer whose key is attested")
	case f.timeout <= 0:
		return badUsage("-timeout must be more than 0")
	}
	if err := checkGrant(f.grant); err != nil {
		return err
	}
	return f.checkValues()
}

// hasTPM reports whether -store is a TPM.
func (f *doctorFlags) hasTPM() bool { return f.store.Store != "" && f.store.Store != "soft" }
