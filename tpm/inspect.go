// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

const (
	// persistentSRK is where a device's operating system puts its storage root
	// key (TCG TPM v2.0 Provisioning Guidance).
	persistentSRK = tpm2.TPMHandle(0x81000001)

	// maxMilliseconds is the longest time.Duration.
	maxMilliseconds = uint64(1<<63-1) / uint64(time.Millisecond)
)

// Bits of TPMA_PERMANENT and TPMA_STARTUP_CLEAR (TPM 2.0 Part 2).
const (
	ownerAuthSet       = 1 << 0
	endorsementAuthSet = 1 << 1
	lockoutAuthSet     = 1 << 2
	inLockout          = 1 << 9

	shEnable = 1 << 1
	ehEnable = 1 << 2
)

func (c *call) status(certificates [][]byte) (status Status, err error) {
	c.clearOut()
	for _, inspect := range []func(*Status) error{
		c.inspectIdentity, c.inspectState, c.inspectPCRs, c.inspectClock, c.inspectCertificates, c.inspectStorageRootKey,
	} {
		if err := inspect(&status); err != nil {
			return Status{}, err
		}
	}
	for _, der := range certificates {
		certificate, err := parseCertificate(der)
		given := EKCertificate{Certificate: certificate}
		if err == nil && certificate.IsCA {
			status.EKLinks = append(status.EKLinks, given)
		} else {
			status.EKCertificates = append(status.EKCertificates, given)
		}
	}
	return status, nil
}

func (c *call) inspectIdentity(status *Status) error {
	p, err := c.properties(tpm2.TPMPTFamilyIndicator, tpm2.TPMPTManufacturer)
	if err != nil {
		return err
	}
	status.Manufacturer = letters(p, tpm2.TPMPTManufacturer)
	status.Model = letters(p, tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4)
	high, low := p[tpm2.TPMPTFirmwareVersion1], p[tpm2.TPMPTFirmwareVersion2]
	status.Firmware = fmt.Sprintf("%d.%d.%d.%d", high>>16, high&0xffff, low>>16, low&0xffff)
	revision := p[tpm2.TPMPTRevision]
	status.Specification = fmt.Sprintf("%s revision %d.%02d", letters(p, tpm2.TPMPTFamilyIndicator), revision/100, revision%100)
	return nil
}

func (c *call) inspectState(status *Status) error {
	p, err := c.properties(tpm2.TPMPTPermanent, tpm2.TPMPTStartupClear, tpm2.TPMPTHRLoadedAvail, tpm2.TPMPTHRTransientAvail, tpm2.TPMPTHRPersistentAvail,
		tpm2.TPMPTLockoutCounter, tpm2.TPMPTMaxAuthFail, tpm2.TPMPTLockoutInterval, tpm2.TPMPTLockoutRecovery)
	if err != nil {
		return err
	}
	permanent, startup := p[tpm2.TPMPTPermanent], p[tpm2.TPMPTStartupClear]
	status.Owner = Hierarchy{Enabled: startup&shEnable != 0, AuthSet: permanent&ownerAuthSet != 0}
	status.Endorsement = Hierarchy{Enabled: startup&ehEnable != 0, AuthSet: permanent&endorsementAuthSet != 0}
	status.Lockout = Lockout{
		Active:      permanent&inLockout != 0,
		Failures:    int(p[tpm2.TPMPTLockoutCounter]),
		MaxFailures: int(p[tpm2.TPMPTMaxAuthFail]),
		Interval:    time.Duration(p[tpm2.TPMPTLockoutInterval]) * time.Second,
		AuthSet:     permanent&lockoutAuthSet != 0,

		AuthRecovery: time.Duration(p[tpm2.TPMPTLockoutRecovery]) * time.Second,
	}
	status.FreeObjects = int(p[tpm2.TPMPTHRTransientAvail])
	status.FreeSessions = int(p[tpm2.TPMPTHRLoadedAvail])
	status.FreePersistent = int(p[tpm2.TPMPTHRPersistentAvail])
	return nil
}

func (c *call) inspectPCRs(status *Status) error {
	rsp, err := c.capability(tpm2.TPMCapPCRs, 0)
	if err != nil {
		return err
	}
	assigned, err := rsp.AssignedPCR()
	if err != nil {
		return fmt.Errorf("%w: list of PCR banks: %w", errGarbled, err)
	}
	for _, bank := range assigned.PCRSelections {
		if len(bytes.Trim(bank.PCRSelect, "\x00")) == 0 {
			continue // known, and not active
		}
		name := fmt.Sprintf("0x%04x", uint16(bank.Hash))
		if hash, err := bank.Hash.Hash(); err == nil {
			name = hash.String()
		}
		status.PCRBanks = append(status.PCRBanks, name)
	}
	return nil
}

func (c *call) inspectClock(status *Status) error {
	response, err := query(c, tpm2.TPMCCReadClock, nil)
	if err != nil {
		return err
	}
	var now, running uint64 // TPMS_TIME_INFO
	var resets, restarts uint32
	var safe uint8
	if !response.ReadUint64(&running) || !response.ReadUint64(&now) || !response.ReadUint32(&resets) || !response.ReadUint32(&restarts) ||
		!response.ReadUint8(&safe) || running == 0 && now == 0 && resets == 0 && restarts == 0 && safe == 0 {
		return fmt.Errorf("%w: TPM2_ReadClock: nothing in it", errGarbled)
	}
	status.Clock = Clock{
		Running:  time.Duration(min(running, maxMilliseconds)) * time.Millisecond,
		Resets:   resets,
		Restarts: restarts,
		Safe:     safe != 0,
	}
	return nil
}

// inspectCertificates reads the certificates of the endorsement keys that are
// known here, and the links from them.
func (c *call) inspectCertificates(status *Status) error {
	there, err := c.indexes(firstEKIndex, lastEKIndex)
	if err != nil {
		return err
	}
	for _, t := range ekTemplates {
		if !slices.Contains(there, t.certificate) {
			continue
		}
		content, err := c.readNV(t.certificate)
		if err != nil && !c.refused(err) {
			return err
		}
		certificate := parseEKCertificate(content)
		if certificate != nil && !t.makes(certificate.PublicKey) {
			certificate = nil
		}
		status.EKCertificates = append(status.EKCertificates, EKCertificate{uint32(t.certificate), certificate})
	}
	chain, err := c.readEKChain(there)
	if err != nil && !c.refused(err) {
		return err
	}
	for _, der := range chain {
		link, err := parseCertificate(der)
		if err != nil {
			link = nil
		}
		status.EKLinks = append(status.EKLinks, EKCertificate{uint32(firstChainIndex), link})
	}
	return nil
}

func (c *call) inspectStorageRootKey(status *Status) error {
	found := &status.StorageRootKey
	persistent, err := c.readObject(persistentSRK)
	if err != nil && !c.refused(err) {
		return err
	}
	if err == nil {
		found.Persistent = kindOf(&persistent.public)
	}
	made, err := c.makeParent(keyfile.StorageRootKey)
	if err != nil && !c.refused(err) {
		return err
	}
	if err != nil {
		found.Err = explain("try the TPM", err)
		return nil
	}
	c.release(made)
	found.Name, found.Public = made.Name.Buffer, tpm2.Marshal(made.public)
	status.Managed = c.managed
	return nil
}

// refused reports whether err is the TPM's no to one command, after which there
// is a point in asking it for something else.
func (c *call) refused(err error) bool {
	return c.ctx.Err() == nil && errors.As(err, new(tpm2.TPMRC))
}

// kindOf says in a word what key it is.
func kindOf(public *tpm2.TPMTPublic) string {
	if parameters, err := public.Parameters.RSADetail(); err == nil {
		return fmt.Sprintf("RSA-%d", parameters.KeyBits)
	}
	if parameters, err := public.Parameters.ECCDetail(); err == nil {
		if curve, err := parameters.CurveID.Curve(); err == nil {
			return "ECC " + curve.Params().Name
		}
	}
	return fmt.Sprintf("type 0x%04x", uint16(public.Type))
}

// letters returns the text that properties hold, four bytes each. What cannot
// be printed is left out: it comes from the TPM and goes to a terminal.
func letters(properties map[tpm2.TPMPT]uint32, from ...tpm2.TPMPT) string {
	var octets []byte
	for _, p := range from {
		octets = binary.BigEndian.AppendUint32(octets, properties[p])
	}
	printable := func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}
	return string(bytes.Join(bytes.Fields(bytes.Map(printable, octets)), []byte(" ")))
}
