// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// examineTPM reports whether the TPM works at all.
func (d *doctor) examineTPM(ctx context.Context) bool {
	if !d.deviceFile() {
		return false
	}
	flags := d.flags.store
	flags.Keys = "" // a temporary folder: what is wrong with the real one comes later
	store, err := d.open(ctx, &flags)
	if err == nil {
		defer store.Close()
	}
	if !d.opened(err) {
		return false
	}
	s, ok := store.Store.(*tpm.Store)
	if !ok {
		d.fail("TPM", "choose another -store", "%s is no TPM", flags.Store)
		return false
	}
	status, err := s.Status(ctx)
	if err != nil {
		d.fail("TPM", "switch the device off and on; if it stays so, the TPM, its driver or what is between is defective", "it does not work: %v", err)
		return false
	}
	d.sharing(&status)
	d.ok("TPM", "has started: %s", identity(&status))
	d.lockout(&status.Lockout)
	d.hierarchy("owner", d.flags.store.OwnerAuthFile, status.Owner, "no key can be made or used",
		"programs have to know it to make and load keys")
	d.storageRootKey(&status.StorageRootKey)
	d.hierarchy("endorsement", d.flags.store.EndorsementAuthFile, status.Endorsement, "the device cannot prove to an attester that it has this TPM",
		"programs have to know it to collect evidence")
	d.certificates(&status)
	d.room(&status)
	d.banks(status.PCRBanks)
	d.tpmClock(&status.Clock)
	return true
}

// sharing says whether other programs can use the TPM, too.
func (d *doctor) sharing(status *tpm.Status) {
	const check = "resource manager"
	path := d.flags.store.Store
	device := ""
	if filepath.IsAbs(path) {
		device = filepath.Base(path)
	}
	switch {
	case status.Managed || strings.HasPrefix(device, "tpmrm") || path == "tbs":
		d.ok(check, "programs share the TPM")
	case device == "":
		d.ok(check, "none: one program at a time can use this TPM")
	default:
		managed := filepath.Join(filepath.Dir(path), strings.Replace(device, "tpm", "tpmrm", 1))
		d.warn(check, "use "+managed, "none: %s is the raw device, which one program at a time can use, and where what a killed one has left stays", path)
	}
}

// identity says which TPM it is.
func identity(status *tpm.Status) string {
	name := strings.TrimSpace(status.Manufacturer + " " + status.Model)
	return fmt.Sprintf("%s, firmware %s, TPM %s", name, status.Firmware, status.Specification)
}

// withoutNoDA are the keys that a TPM's lockout stops.
const withoutNoDA = "keys without noDA (with a PIN, or made by other programs)"

func (d *doctor) lockout(l *tpm.Lockout) {
	const check = "lockout"
	d.lockedOut = l.Active
	forgives := "it does not forgive by itself"
	if l.Interval > 0 {
		forgives = fmt.Sprintf("it forgives one failure in %v while it is switched on", l.Interval)
	}
	clearing := "tpm2_dictionarylockout --clear-lockout"
	if l.AuthSet {
		clearing += " -p file:FILE, with the lockout password in FILE"
	}
	found := fmt.Sprintf("%d of %d failures; %s", l.Failures, l.MaxFailures, forgives)
	switch {
	case l.Active && l.Interval > 0:
		d.fail(check, fmt.Sprintf("leave the device switched on for up to %v, or: %s; and find who tries wrong PINs or cuts the power", l.Interval, clearing),
			"active, %s do not work: %s", withoutNoDA, found)
	case l.Active:
		d.fail(check, clearing+"; and find who tries wrong PINs or cuts the power", "active, %s do not work: %s", withoutNoDA, found)
	case l.Failures > 0:
		d.warn(check, "find who tries wrong PINs; power cuts count, too, where "+withoutNoDA+" are used: switch the device off in an orderly way (tpm2_shutdown)", "not active: %s", found)
	default:
		d.ok(check, "not active: %s", found)
	}
}

// hierarchy is about one that is called name, whose password may be in authFile.
func (d *doctor) hierarchy(name, authFile string, h tpm.Hierarchy, disabled, known string) {
	check := name + " hierarchy"
	switch {
	case !h.Enabled:
		d.fail(check, "enable it in the firmware setup", "disabled: %s", disabled)
	case h.AuthSet && authFile != "":
		d.ok(check, "enabled, has a password, which is given")
	case h.AuthSet:
		d.warn(check, fmt.Sprintf("%s: give it here with -%s-auth-file FILE, or remove it with tpm2_changeauth -c %[2]s -p file:FILE", known, name), "enabled, has a password")
	default:
		d.ok(check, "enabled, has no password")
	}
}

func (d *doctor) storageRootKey(key *tpm.StorageRootKey) {
	const check = "storage root key"
	others := "nothing at 0x81000001, which is not needed here"
	if key.Persistent != "" {
		others = key.Persistent + " at 0x81000001, which other programs may need"
	}
	switch {
	case errors.Is(key.Err, keystore.ErrAuth):
		d.fail(check, "see owner hierarchy, and what is in -owner-auth-file if that is given", "cannot be made without the owner hierarchy's password; %s", others)
	case key.Err != nil:
		d.fail(check, "see owner hierarchy and room; if these are well, switch the device off and on", "cannot be made: %v", key.Err)
	default:
		d.ok(check, "can be made, Name %x, for an attester's registry %s; %s",
			key.Name, base64.StdEncoding.EncodeToString(key.Public), others)
	}
}

func (d *doctor) certificates(status *tpm.Status) {
	const check, none = "EK certificates", "see whether the maker has a firmware update or the certificate on a web site"
	if len(status.EKCertificates) == 0 {
		d.warn(check, "attesters that go by a list of known devices do without; others need the certificate, which some makers have on a web site (-ek-certificates FILE)", "the TPM has none")
	}
	for _, c := range status.EKCertificates {
		if c.Certificate == nil {
			d.warn(check, none, "%s: is there, but is no certificate that can be read", place(c))
			continue
		}
		d.ok(check, "%s: %s, until %s, by %q", place(c), c.Certificate.PublicKeyAlgorithm, c.Certificate.NotAfter.Format(time.DateOnly), c.Certificate.Issuer)
	}
	for _, link := range status.EKLinks {
		if link.Certificate == nil {
			d.warn(check, none, "%s: has a link that is no certificate that can be read", place(link))
			continue
		}
		d.ok(check, "%s: link %q, until %s, by %q", place(link), link.Certificate.Subject, link.Certificate.NotAfter.Format(time.DateOnly), link.Certificate.Issuer)
	}
}

// place says where a certificate is.
func place(c tpm.EKCertificate) string {
	if c.Index == 0 {
		return "-ek-certificates"
	}
	return fmt.Sprintf("0x%08x", c.Index)
}

// fewObjects is how many objects collecting evidence loads.
const fewObjects = 2

func (d *doctor) room(status *tpm.Status) {
	const check = "room"
	found := fmt.Sprintf("free are %d slots for loaded keys, %d for sessions, %d for persistent keys", status.FreeObjects, status.FreeSessions, status.FreePersistent)
	advice := "a program has left them full: use the device of the resource manager, or switch the device off and on"
	switch {
	case status.FreeObjects == 0 || status.FreeSessions == 0:
		d.fail(check, advice, "%s", found)
	case status.FreeObjects < fewObjects:
		d.warn(check, advice, "%s", found)
	default:
		d.ok(check, "%s", found)
	}
}

func (d *doctor) banks(banks []string) {
	const check = "PCR banks"
	if !slices.Contains(banks, "SHA-256") {
		d.fail(check, "activate the SHA-256 bank in the firmware setup, or with tpm2_pcrallocate", "SHA-256 is not active, so the device cannot prove what it has booted: %s", strings.Join(banks, ", "))
		return
	}
	d.ok(check, "%s", strings.Join(banks, ", "))
}

func (d *doctor) tpmClock(c *tpm.Clock) {
	found := fmt.Sprintf("on for %v, %s and %s since it was cleared", c.Running.Round(time.Second), count(int(c.Resets), "start"), count(int(c.Restarts), "resumption"))
	if !c.Safe {
		found += "; the last time the power was cut without a shutdown"
	}
	d.ok("TPM clock", "%s", found)
}
