// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// maxQuotes is how often PCRs are read and quoted until both agree: they change while a
// device boots.
const maxQuotes = 5

var _ keystore.AttestableKey = (*key)(nil)

// Evidence implements [keystore.AttestableKey]. It works for every key of a
// Store, also for an imported one or one whose PCRs have changed: what the key
// is worth is for the attester to judge, by its public area in the statement.
// Of a loaded key it costs three commands; with PCRs another one, and one for
// each eight of them. For a key with a PIN the session that keys with a PIN sign
// by is opened, if it is not, by three more.
//
// The logs are those of Config.EventLog, UserspaceLog and IMALog. They are asked for
// only if there are PCRs to quote.
func (k *key) Evidence(ctx context.Context, req keystore.EvidenceRequest) (keystore.Evidence, error) {
	if len(req.Binding) != sha256.Size {
		return keystore.Evidence{}, fmt.Errorf("tpm: EvidenceRequest.Binding has %d bytes, not %d", len(req.Binding), sha256.Size)
	}
	if err := checkPCRs(req.PCRs); err != nil {
		return keystore.Evidence{}, err
	}
	doing := fmt.Sprintf("collect evidence of key %q", k.name)
	cfg := &k.store.config
	var logs keystore.Evidence
	var err error
	if len(req.PCRs) > 0 {
		if logs.EventLog, err = askForLog(ctx, "event log", cfg.EventLog); err != nil {
			return keystore.Evidence{}, explain(doing, err)
		}
	}
	p, err := withPIN(ctx, k, func(pin []byte) (*proof, error) { return k.prove(ctx, req, pin) })
	if err != nil {
		return keystore.Evidence{}, explain(doing, err)
	}
	if len(req.PCRs) > 0 {
		if logs.UserspaceLog, err = askForLog(ctx, "userspace log", cfg.UserspaceLog); err == nil {
			logs.IMALog, err = askForLog(ctx, "IMA's log", cfg.IMALog)
		}
		if err != nil {
			return keystore.Evidence{}, explain(doing, err)
		}
	}
	logs.Quote = p.quote
	logs.Statement = appendStatement(nil, p, k.file.Public.Bytes(), req.AKCertificates)
	return logs, nil
}

// proof is what the attestation key has signed.
type proof struct {
	certifyInfo []byte // TPMS_ATTEST
	signature   []byte // TPMT_SIGNATURE
	quote       *keystore.Quote
}

// prove makes both statements within one turn at the TPM, so that no reset
// comes between them unseen. It uses the slots of two objects.
func (k *key) prove(ctx context.Context, req keystore.EvidenceRequest, pin []byte) (*proof, error) {
	return run(ctx, k.store.device, func(c *call) (*proof, error) {
		if _, err := c.load(k.file); err != nil {
			return nil, err
		}
		defer c.forgetUnproved(k.file)
		needsPIN := k.needsPIN()
		counts := c.counts(k.file, needsPIN, pin)
		auth, err := c.authorizeCertify(k.file, needsPIN, pin)
		if err != nil {
			return nil, c.withRecovery(err)
		}
		ak, err := c.makeAttestationKey(k.store.config.EndorsementAuth)
		if err != nil {
			return nil, err
		}
		defer c.release(ak)
		p, err := c.certify(k.file, auth, ak, req.Binding)
		if err != nil {
			c.rejected(k.file, auth, err)
			err = unlessAnswered(counts, err)
			return nil, k.learn(c.withRecovery(c.whileThere(k.file, err)), needsPIN, pin)
		}
		c.succeeded(auth)
		c.taken(k.file, needsPIN)
		if c.managed && k.file.UsesPolicy {
			c.flushSession(auth) // signing needs another, and each is swapped around every command
		}
		if len(req.PCRs) > 0 {
			p.quote, err = c.quote(ak, req.Binding, req.PCRs)
		}
		return p, err
	}, pin)
}

// authorizeCertify returns the session for TPM2_Certify of k, or errNeedPIN as
// authorize does.
//
// The command needs the key's ADMIN role (TPM 2.0 Part 3, "TPM2_Certify"): its
// authorization value opens that for each of our keys, also for one whose USER
// role, signing, takes a policy (Part 1, "ADMIN Role").
func (c *call) authorizeCertify(k *keyfile.File, needsPIN bool, pin []byte) (tpm2.Session, error) {
	if k.AdminWithPolicy {
		return nil, fmt.Errorf("%w: %w: the key's attributes have adminWithPolicy, so TPM2_Certify would need a policy that is not known here: make the key without", keystore.ErrPolicy, errors.ErrUnsupported)
	}
	if !k.UsesPolicy {
		return c.authorize(k, needsPIN, pin)
	}
	if k.EmptyAuth && !needsPIN {
		return tpm2.PasswordAuth(nil), nil
	}
	if pin = c.rememberPIN(k, pin); pin == nil {
		return nil, errNeedPIN
	}
	return c.authorizeBy(k, hmacKind(k.Parent.Name), pin)
}

// certify has ak say that k is in this TPM.
func (c *call) certify(k *keyfile.File, auth tpm2.Session, ak *object, binding []byte) (*proof, error) {
	rsp, err := tpm2.Certify{
		ObjectHandle:   tpm2.AuthHandle{Handle: c.key.handle, Name: k.Name, Auth: auth},
		SignHandle:     ak.AuthHandle,
		QualifyingData: tpm2.TPM2BData{Buffer: binding},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, // the attestation key's own
	}.Execute(c)
	if err != nil {
		return nil, ofKey(fmt.Errorf("TPM2_Certify: %w", err))
	}
	signature, err := marshalSignature(rsp.Signature)
	if err != nil {
		return nil, err
	}
	if name, err := certifiedName(rsp.CertifyInfo); err != nil || !bytes.Equal(name, k.Name.Buffer) {
		return nil, fmt.Errorf("%w: TPM2_Certify: not about the key", errGarbled)
	}
	return &proof{certifyInfo: rsp.CertifyInfo.Bytes(), signature: signature}, nil
}

func certifiedName(info tpm2.TPM2BAttest) ([]byte, error) {
	attest, err := info.Contents()
	if err != nil {
		return nil, err
	}
	certified, err := attest.Attested.Certify()
	if err != nil {
		return nil, err
	}
	return certified.Name.Buffer, nil
}

// quote has ak say what is in the PCRs, until that is what was read from them.
func (c *call) quote(ak *object, binding []byte, pcrs []int) (*keystore.Quote, error) {
	pcrs = slices.Sorted(slices.Values(pcrs))
	parameters := binary.BigEndian.AppendUint16(appendSized(nil, binding), uint16(tpm2.TPMAlgNull)) // ak's own scheme
	parameters = append(parameters, tpm2.Marshal(selectPCRs(pcrs))...)
	for range maxQuotes {
		values, err := c.readPCRs(pcrs)
		if err != nil {
			return nil, err
		}
		response, err := c.authorized(tpm2.TPMCCQuote, []tpm2.TPMHandle{ak.Handle}, []tpm2.TPM2BName{ak.Name}, ak.Auth, parameters)
		if err != nil {
			return nil, fmt.Errorf("TPM2_Quote: %w", err)
		}
		var attest cryptobyte.String
		if !response.ReadUint16LengthPrefixed(&attest) {
			return nil, unread("TPM2_Quote")
		}
		signed, err := tpm2.Unmarshal[tpm2.TPMTSignature](response)
		if err != nil {
			return nil, fmt.Errorf("%w: TPM2_Quote: %w", errGarbled, err)
		}
		signature, err := marshalSignature(*signed)
		if err != nil {
			return nil, err
		}
		quoted, err := quotedDigest(tpm2.BytesAs2B[tpm2.TPMSAttest](attest))
		if err != nil {
			return nil, err
		}
		digest, result := sha256.New(), make(map[int][]byte)
		for i, value := range values {
			digest.Write(value)
			result[pcrs[i]] = value
		}
		if bytes.Equal(digest.Sum(nil), quoted) {
			return &keystore.Quote{HashAlg: uint16(tpm2.TPMAlgSHA256), PCRs: result, Quoted: attest, Signature: signature}, nil
		}
	}
	return nil, fmt.Errorf("%w: the PCRs have changed between reading and quoting them, %d times: try again later", keystore.ErrUnavailable, maxQuotes)
}

func quotedDigest(quoted tpm2.TPM2BAttest) ([]byte, error) {
	attest, err := quoted.Contents()
	if err != nil {
		return nil, fmt.Errorf("%w: TPM2_Quote: %w", errGarbled, err)
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return nil, fmt.Errorf("%w: TPM2_Quote: %w", errGarbled, err)
	}
	return info.PCRDigest.Buffer, nil
}

// marshalSignature returns a TPMT_SIGNATURE of the attestation key.
func marshalSignature(signature tpm2.TPMTSignature) ([]byte, error) {
	if _, err := signature.Signature.ECDSA(); err != nil {
		return nil, fmt.Errorf("%w: no signature of the attestation key: %w", errGarbled, err)
	}
	return tpm2.Marshal(signature), nil
}
