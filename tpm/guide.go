// SPDX-License-Identifier: Apache-2.0

// # PIN
//
// The PIN is the key's authorization value, byte by byte, as other programs use it: 1 to
// 32 bytes, none of them zero. It is never on the TPM's bus: TPM2_Create gets it
// encrypted, and signatures are authorized by an HMAC session that is salted to the
// storage root key and encrypts TPM2_Sign's parameter. One session serves all keys. The
// session stays, and each key's PIN stays in memory, until it was not used for 30
// seconds. If keys are used less often than that, a session is opened for each signature,
// and the PIN alone stays in memory for 30 seconds.
//
// Whether a key has a PIN is in its private part, which the TPM alone can read: what the
// file says of it (emptyAuth) is believed. A file that says wrongly that there is none
// costs one wrong try in its life, unless the key has noDA: no command asks for less.
//
// Wrong PINs count toward the lockout of the whole TPM, so one that was refused is
// not sent again for that key as long as the process lives, in whatever Store, or
// until the key's file has another private part. A power cut counts as one, too, if a
// key without the attribute noDA was used since the start: one that has a PIN, or
// that another program has made, with or without a PIN (OpenSSL, tpm2_create,
// tpm2_ptool). A device that is simply switched off needs a TPM that forgives quickly
// (see tpm2_dictionarylockout), or keys that are made here without a PIN.
//
// The password of a hierarchy is not on the bus either, but no salt protects it:
// whoever records one command can try guesses on it. It should be a long random one.
//
// GODEBUG=fips140=only allows neither AES-CFB nor HMACs with short keys. Under it a key
// must have no PIN and be bound to no PCRs, and the password of a hierarchy must have at
// least 14 bytes. Anything else is keystore.ErrUnavailable. fips140=on allows everything.
//
// # Evidence
//
// Keys are [keystore.AttestableKey]s: the TPM proves where the key lives (TPM2_Certify)
// and what was booted (TPM2_Quote), by an attestation key in the endorsement hierarchy
// that is made when it is needed and does nothing else. An attester certifies that key
// once, by credential activation with the TPM's endorsement key; the certificates are
// kept beside the key files. The attester gets what the TPM has in NV for its endorsement
// key: the certificate, and the links from 0x01c00100 on that lead to the maker's root.
// If the maker's own template or nonce is beside the certificate, the key is made by
// these. Config.EKCertificates adds what a maker has elsewhere. Evidence costs 3
// commands, 5 with a quote of up to eight PCRs. The measured-boot log is part of it only
// if Config.EventLog is set, to [LinuxEventLog] or
// [WindowsEventLog] for example; so are,
// by Config.UserspaceLog and IMALog, those of what was measured later: by systemd, and by
// Linux's IMA.
//
// [Store.Status] and [Store.Describe] tell a technician about TPM and keys, and
// change nothing.
//
// # Raw devices
//
// Without a resource manager, as on /dev/tpm0 or a simulator's socket, what a
// killed process had loaded stays in the TPM, which has three slots; so does what
// a command made whose answer was lost. Config.Exclusive clears both away. Two
// programs at a time cannot use such a device.
//
// # Windows
//
// The TPM Base Services (TBS) are between, and manage resources as Linux's
// /dev/tpmrm0 does. All of this was tried in Wine, with swtpm behind a TBS that
// forwards to it, and not yet on a real Windows.
//
// A key's file is NAME.pem, but Windows takes b and B for one file, and nul for a
// device. So a plus sign is before each upper-case letter (+my+key.pem), number signs
// are around three and more (#key#.pem), and a plus sign is behind the name of a
// device (nul+.pem). The letters of a file that somebody else puts there count as
// lower case.
//
// Instead of modes there are access control lists. Files and folders that are made
// here get a list of their own, of their owner, SYSTEM and Administrators. A file
// that anybody else may read is refused, and so is a folder that anybody else may
// write to. The error has the icacls command that mends it. What belongs to another
// user who is no service is refused, too: in ProgramData each user may make folders.
// The folder's lock is the file .lock in it. What another program has open, so that
// it cannot be replaced, is tried again for five seconds.
//
// Microsoft's documentation, which was not put to the test, has TBS block some
// commands, and not know the owner's password on newer Windows. Of what is done here,
// Persist, Unpersist, and Delete of a persistent key (TPM2_EvictControl) may need an
// administrator, or a service that runs as LocalSystem. So may the endorsement
// hierarchy, which enrolment and evidence use. Creating keys and signing does not:
// that is TPM2_CreatePrimary of the owner hierarchy, Create, Load and Sign. An error
// of the table above tells, and nothing is written then.
//
// A service account, such as "NT SERVICE\NAME" or LocalService, keeps its keys in a
// folder of its own in ProgramData, which the installer makes or the service itself;
// a program of a user in that user's profile. An administrator's tool may read the
// former. On ARM64 everything is compiled (GOARCH=arm64), and was not tried.
package tpm

// The comment above is more of that in doc.go: go doc shows both as one.
